module tracerecord

go 1.18
