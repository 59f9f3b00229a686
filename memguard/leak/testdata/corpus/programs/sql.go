// SPDX-License-Identifier: Apache-2.0

package programs

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"io"
)

// fakeSQL is a driver whose every query has one row.
type fakeSQL struct{}

func (fakeSQL) Open(string) (driver.Conn, error)             { return fakeSQL{}, nil }
func (fakeSQL) Connect(context.Context) (driver.Conn, error) { return fakeSQL{}, nil }
func (fakeSQL) Driver() driver.Driver                        { return fakeSQL{} }
func (fakeSQL) Prepare(string) (driver.Stmt, error)          { return fakeSQL{}, nil }
func (fakeSQL) Close() error                                 { return nil }
func (fakeSQL) Begin() (driver.Tx, error)                    { return fakeSQL{}, nil }
func (fakeSQL) Commit() error                                { return nil }
func (fakeSQL) Rollback() error                              { return nil }
func (fakeSQL) NumInput() int                                { return 0 }
func (fakeSQL) Exec([]driver.Value) (driver.Result, error)   { return driver.RowsAffected(1), nil }
func (fakeSQL) Query([]driver.Value) (driver.Rows, error)    { return &oneRow{}, nil }

type oneRow struct{ done bool }

func (*oneRow) Columns() []string { return []string{"n"} }
func (*oneRow) Close() error      { return nil }
func (r *oneRow) Next(dst []driver.Value) error {
	if r.done {
		return io.EOF
	}
	r.done, dst[0] = true, int64(1)
	return nil
}

func openSQL() *sql.DB { return sql.OpenDB(fakeSQL{}) }
