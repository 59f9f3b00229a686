// SPDX-License-Identifier: Apache-2.0

package auth

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/memguard/memguard-go/sidecar/internal/reread"
)

var (
	tlsVersions = map[string]uint16{
		"TLS10": tls.VersionTLS10, "TLS11": tls.VersionTLS11, "TLS12": tls.VersionTLS12, "TLS13": tls.VersionTLS13,
	}
	tlsCurves = map[string]tls.CurveID{
		"CurveP256": tls.CurveP256, "CurveP384": tls.CurveP384, "CurveP521": tls.CurveP521, "X25519": tls.X25519,
	}
	clientAuthTypes = map[string]tls.ClientAuthType{
		"": tls.NoClientCert, "NoClientCert": tls.NoClientCert,
		"RequestClientCert":    tls.RequestClientCert,
		"RequireAnyClientCert": tls.RequireAnyClientCert, "RequireClientCert": tls.RequireAnyClientCert,
		"VerifyClientCertIfGiven":    tls.VerifyClientCertIfGiven,
		"RequireAndVerifyClientCert": tls.RequireAndVerifyClientCert,
	}
)

// setTLS makes w.tls, w.clientCAs and w.sans of the section tls_server_config.
func (w *web) setTLS(f tlsFile, http2 bool, read reread.Read) error {
	// Values are judged where there is no TLS too, as the toolkit does.
	c := &tls.Config{NextProtos: []string{"http/1.1"}}
	if http2 && http2Linked {
		c.NextProtos = []string{"h2", "http/1.1"}
	}
	var ok bool
	if c.MinVersion, ok = tlsVersions[f.MinVersion]; !ok {
		return fmt.Errorf("min_version: %q is not one of TLS10, TLS11, TLS12, TLS13", f.MinVersion)
	}
	if c.MaxVersion, ok = tlsVersions[f.MaxVersion]; !ok {
		return fmt.Errorf("max_version: %q is not one of TLS10, TLS11, TLS12, TLS13", f.MaxVersion)
	}
	for _, name := range f.Ciphers {
		i := slices.IndexFunc(tls.CipherSuites(), func(s *tls.CipherSuite) bool { return s.Name == name })
		if i < 0 {
			return fmt.Errorf("cipher_suites: %q is not known, or not safe", name)
		}
		c.CipherSuites = append(c.CipherSuites, tls.CipherSuites()[i].ID)
	}
	for _, name := range f.Curves {
		id, ok := tlsCurves[name]
		if !ok {
			return fmt.Errorf("curve_preferences: %q is not one of CurveP256, CurveP384, CurveP521, X25519", name)
		}
		c.CurvePreferences = append(c.CurvePreferences, id)
	}
	if f.CertFile+f.Cert+f.KeyFile+f.Key+f.ClientCAs+f.ClientCA+f.ClientAuth == "" {
		return nil
	}

	cert, err := material(read, "cert", f.CertFile, f.Cert)
	if err != nil {
		return err
	}
	key, err := material(read, "key", f.KeyFile, f.Key)
	if err != nil {
		return err
	}
	switch {
	case cert == nil:
		return errors.New("cert or cert_file is missing")
	case key == nil:
		return errors.New("key or key_file is missing")
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return fmt.Errorf("cert and key: %w", err)
	}
	c.Certificates = []tls.Certificate{pair}

	if c.ClientAuth, ok = clientAuthTypes[f.ClientAuth]; !ok {
		return fmt.Errorf("client_auth_type: %q is not one of NoClientCert, RequestClientCert, RequireAnyClientCert, VerifyClientCertIfGiven, RequireAndVerifyClientCert", f.ClientAuth)
	}
	cas, err := material(read, "client_ca", f.ClientCAs, f.ClientCA)
	if err != nil {
		return err
	}
	verifies := c.ClientAuth >= tls.VerifyClientCertIfGiven
	switch {
	case cas != nil && c.ClientAuth == tls.NoClientCert:
		return errors.New("client_ca is set, and client_auth_type asks for no certificate: write RequireAndVerifyClientCert or VerifyClientCertIfGiven")
	case cas != nil:
		c.ClientCAs = x509.NewCertPool()
		if !c.ClientCAs.AppendCertsFromPEM(cas) {
			return errors.New("client_ca holds no certificate")
		}
	}
	if f.AllowedSANs != nil && c.ClientAuth != tls.NoClientCert {
		// Not VerifyPeerCertificate, which a resumed session goes round.
		c.VerifyConnection = func(s tls.ConnectionState) error {
			if len(s.PeerCertificates) == 0 {
				return errors.New("auth: client_allowed_sans is set, and the client shows no certificate")
			}
			return checkSANs(s.PeerCertificates[0], f.AllowedSANs)
		}
	}
	w.tls = c
	if verifies && c.ClientCAs != nil {
		w.clientCAs, w.sans = c.ClientCAs, f.AllowedSANs
		w.verified = &bounded[[sha256.Size]byte, error]{max: 256}
	}
	return nil
}

// material returns what a file holds, or what stands in the configuration; nil for neither.
func material(read reread.Read, field, path, text string) ([]byte, error) {
	switch {
	case path != "":
		b, err := read(path)
		if err != nil {
			return nil, fmt.Errorf("%s_file: %w", field, err)
		}
		return b, nil
	case text != "":
		return []byte(text), nil
	}
	return nil, nil
}

// sansOf returns the subject alternative names of a certificate.
func sansOf(c *x509.Certificate) []string {
	names := slices.Concat(c.DNSNames, c.EmailAddresses)
	for _, ip := range c.IPAddresses {
		names = append(names, ip.String())
	}
	for _, uri := range c.URIs {
		names = append(names, uri.String())
	}
	return names
}

func checkSANs(c *x509.Certificate, allowed []string) error {
	for _, name := range sansOf(c) {
		if slices.Contains(allowed, name) {
			return nil
		}
	}
	return errors.New("auth: none of the names of the client's certificate is in client_allowed_sans")
}

// client says who a client certificate is. The handshake verified it; here it is verified
// by the file as it is now, so that a CA that is taken out ends what open connections may.
func (w *web) client(s *tls.ConnectionState) (User, error) {
	leaf := s.PeerCertificates[0]
	refuse := func(reason string, err error) (User, error) {
		return User{}, &Error{How: HowMTLS, Reason: reason, Err: err}
	}
	if now := time.Now(); now.After(leaf.NotAfter) || now.Before(leaf.NotBefore) {
		return refuse("the client's certificate is not valid at this time: renew it", nil)
	}
	err := w.verified.getOr(sha256.Sum256(leaf.Raw), func() error {
		between := x509.NewCertPool()
		for _, c := range s.PeerCertificates[1:] {
			between.AddCert(c)
		}
		if _, err := leaf.Verify(x509.VerifyOptions{
			Roots: w.clientCAs, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		}); err != nil {
			return err
		}
		if w.sans != nil {
			return checkSANs(leaf, w.sans)
		}
		return nil
	})
	if err != nil {
		return refuse("the client's certificate is not accepted any more", err)
	}
	u := User{Name: leaf.Subject.CommonName, How: HowMTLS}
	if u.Name == "" {
		if sans := sansOf(leaf); len(sans) > 0 {
			u.Name = sans[0]
		}
	}
	u.Groups = append(slices.Clone(leaf.Subject.Organization), AuthenticatedGroup)
	for _, name := range append([]string{u.Name}, u.Groups...) {
		if err := checkName(name); err != nil {
			return refuse("the client's certificate names nobody: give it a common name or a subject alternative name", err)
		}
	}
	return u, nil
}
