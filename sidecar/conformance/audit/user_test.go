// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	josejwt "github.com/go-jose/go-jose/v4/jwt"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"k8s.io/apiserver/pkg/authentication/serviceaccount"
	"k8s.io/apiserver/pkg/authentication/token/jwt"
	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/memguard/memguard-go/sidecar/auth"
)

// TestUser: who a token is from, in rules and in events, is who the API server says.
func TestUser(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	set, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: &key.PublicKey, KeyID: "k", Algorithm: "ES256", Use: "sig"}}})
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "jwks.json")
	require.NoError(t, os.WriteFile(path, set, 0o600))
	n, err := auth.NewAuthenticator(auth.Config{ServiceAccounts: &auth.ServiceAccounts{Issuer: "https://issuer", JWKSFile: path}}, nil)
	require.NoError(t, err)
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: key}, (&jose.SignerOptions{}).WithHeader("kid", "k"))
	require.NoError(t, err)

	for name, sa := range map[string]serviceaccount.ServiceAccountInfo{
		"of a pod":   {Namespace: "default", Name: "app", UID: "u", PodName: "app-0", PodUID: "p", NodeName: "n", NodeUID: "nu", CredentialID: jwt.CredentialIDForJTI("j")},
		"of a node":  {Namespace: "default", Name: "app.v1", UID: "u", NodeName: "n", CredentialID: jwt.CredentialIDForJTI("j")},
		"of nothing": {Namespace: "kube-system", Name: "app", UID: "u"},
	} {
		k8s := map[string]any{"namespace": sa.Namespace, "serviceaccount": map[string]any{"name": sa.Name, "uid": sa.UID}}
		if sa.PodName != "" {
			k8s["pod"] = map[string]any{"name": sa.PodName, "uid": sa.PodUID}
		}
		if sa.NodeName != "" {
			k8s["node"] = map[string]any{"name": sa.NodeName, "uid": sa.NodeUID}
		}
		claims := map[string]any{"iss": "https://issuer", "aud": "memguard", "exp": time.Now().Add(time.Minute).Unix(),
			"sub": serviceaccount.MakeUsername(sa.Namespace, sa.Name), "kubernetes.io": k8s}
		if sa.CredentialID != "" {
			claims["jti"] = "j"
		}
		token, err := josejwt.Signed(signer).Claims(claims).Serialize()
		require.NoError(t, err)
		r := httptest.NewRequest("GET", "/", nil)
		r.Header.Set("Authorization", "Bearer "+token)
		got, err := n.Authenticate(r)
		require.NoError(t, err, name)

		want := sa.UserInfo()
		assert.Equal(t, want.GetName(), got.Name, name)
		assert.Equal(t, want.GetUID(), got.UID, name)
		assert.Equal(t, append(want.GetGroups(), user.AllAuthenticated), got.Groups, name)
		extra := want.GetExtra()
		if extra == nil {
			extra = map[string][]string{}
		}
		assert.Equal(t, extra, got.Extra, name)
	}
	nobody := auth.Anonymous()
	assert.Equal(t, user.Anonymous, nobody.Name)
	assert.Equal(t, []string{user.AllUnauthenticated}, nobody.Groups)
}
