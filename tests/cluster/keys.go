package main

// Certificates, tokens and kubeconfigs of one cluster. Everything is made afresh in the cluster's
// directory, or found there when the directory is used again.

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// users are the holders of a token. All are cluster administrators; their names tell them apart
// in the audit log. The numbered ones are for tests that share a cluster and count requests.
var users = append(
	[]string{"gitopsd", "admin", "kube-controller-manager", "kube-scheduler", "kwok", "testcluster"},
	numbered("gitopsd-", 100)...)

func numbered(prefix string, count int) []string {
	var names []string
	for i := range count {
		names = append(names, fmt.Sprintf("%s%d", prefix, i))
	}
	return names
}

// keys is what a client or a server of the cluster needs to prove who it is.
type keys struct {
	caPEM  []byte
	tokens map[string]string
}

// makeKeys writes ca.crt, server.crt/.key, client.crt/.key, sa.key and tokens.csv into dir,
// unless they are there.
func makeKeys(dir string) (*keys, error) {
	if _, err := os.Stat(filepath.Join(dir, "tokens.csv")); err != nil {
		if err := writeKeys(dir); err != nil {
			return nil, err
		}
	}
	ca, err := os.ReadFile(filepath.Join(dir, "ca.crt"))
	if err != nil {
		return nil, err
	}
	table, err := os.ReadFile(filepath.Join(dir, "tokens.csv"))
	if err != nil {
		return nil, err
	}
	k := &keys{caPEM: ca, tokens: map[string]string{}}
	for _, line := range strings.Split(strings.TrimSpace(string(table)), "\n") {
		fields := strings.SplitN(line, ",", 3)
		k.tokens[fields[1]] = fields[0]
	}
	return k, nil
}

func writeKeys(dir string) error {
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	ca := template("gitopsd test bed CA")
	ca.IsCA, ca.BasicConstraintsValid = true, true
	ca.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, &caKey.PublicKey, caKey)
	if err != nil {
		return err
	}
	if err := writePEM(dir, "ca.crt", "CERTIFICATE", caDER); err != nil {
		return err
	}

	server := template("kube-apiserver")
	server.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	server.DNSNames = []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"}
	server.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1), net.IPv4(10, 43, 0, 1)}
	if err := writePair(dir, "server", server, ca, caKey); err != nil {
		return err
	}
	client := template("gitopsd")
	client.Subject.Organization = []string{"system:masters"}
	client.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	if err := writePair(dir, "client", client, ca, caKey); err != nil {
		return err
	}

	signer, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	if err := writeKey(dir, "sa.key", signer); err != nil {
		return err
	}
	var table strings.Builder
	for _, user := range users {
		token := make([]byte, 16)
		if _, err := rand.Read(token); err != nil {
			return err
		}
		fmt.Fprintf(&table, "%s,%s,%s,\"system:masters\"\n", hex.EncodeToString(token), user, user)
	}
	return os.WriteFile(filepath.Join(dir, "tokens.csv"), []byte(table.String()), 0o600)
}

func template(name string) *x509.Certificate {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 62))
	if err != nil {
		panic(err) // The kernel's random source does not fail.
	}
	return &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().AddDate(1, 0, 0),
		KeyUsage:     x509.KeyUsageDigitalSignature,
	}
}

func writePair(dir, name string, cert, ca *x509.Certificate, caKey *ecdsa.PrivateKey) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	der, err := x509.CreateCertificate(rand.Reader, cert, ca, &key.PublicKey, caKey)
	if err != nil {
		return err
	}
	if err := writePEM(dir, name+".crt", "CERTIFICATE", der); err != nil {
		return err
	}
	return writeKey(dir, name+".key", key)
}

func writeKey(dir, file string, key *ecdsa.PrivateKey) error {
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return err
	}
	return writePEM(dir, file, "EC PRIVATE KEY", der)
}

func writePEM(dir, file, kind string, der []byte) error {
	text := pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
	return os.WriteFile(filepath.Join(dir, file), text, 0o600)
}

// kubeconfig is the text of a kubeconfig for the holder of a token.
func (k *keys) kubeconfig(server, user string) []byte {
	return config(server, k.caPEM, user, "token: "+k.tokens[user])
}

// certKubeconfig is a kubeconfig in the form that k3s writes: a client certificate and no token.
func (k *keys) certKubeconfig(server, dir string) ([]byte, error) {
	cert, err := os.ReadFile(filepath.Join(dir, "client.crt"))
	if err != nil {
		return nil, err
	}
	key, err := os.ReadFile(filepath.Join(dir, "client.key"))
	if err != nil {
		return nil, err
	}
	credential := fmt.Sprintf("client-certificate-data: %s\n    client-key-data: %s",
		base64.StdEncoding.EncodeToString(cert), base64.StdEncoding.EncodeToString(key))
	return config(server, k.caPEM, "default", credential), nil
}

func config(server string, ca []byte, user, credential string) []byte {
	return []byte(fmt.Sprintf(`apiVersion: v1
kind: Config
clusters:
- name: default
  cluster:
    server: %s
    certificate-authority-data: %s
contexts:
- name: default
  context:
    cluster: default
    user: %s
current-context: default
preferences: {}
users:
- name: %s
  user:
    %s
`, server, base64.StdEncoding.EncodeToString(ca), user, user, credential))
}
