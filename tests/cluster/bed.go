package main

// The parts of a running cluster: how each is started, seen to be ready, and ended.

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// nodeName is the only node. It is fake: kwok plays its kubelet.
const nodeName = "box"

// order is the order of starting.
var order = []string{"kine", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kwok"}

//go:embed stages/*.yaml
var stages embed.FS

//go:embed audit-policy.yaml
var auditPolicy []byte

// part is one child process; cmd is nil while it is stopped.
type part struct {
	program string
	args    []string
	cmd     *exec.Cmd
	gone    chan struct{}
}

type bed struct {
	dir, server string
	kinePort    int
	keys        *keys
	client      *http.Client
	mu          sync.Mutex
	parts       map[string]*part
	ending      bool
	remove      bool
}

// newBed writes every file that the parts read. It starts nothing.
func newBed(dir, bin string) (*bed, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	for _, sub := range []string{"keys", "logs", "home", "stages", "users"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
			return nil, err
		}
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, fmt.Errorf("another testcluster runs in %s", dir)
	}
	for _, tool := range []string{"kine", "kwok"} {
		if _, err := os.Stat(filepath.Join(bin, tool)); err != nil {
			return nil, fmt.Errorf("%s is not in %s: give --bin, or run tests/tools.sh", tool, bin)
		}
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}

	k, err := makeKeys(filepath.Join(dir, "keys"))
	if err != nil {
		return nil, err
	}
	ports, err := freePorts(3)
	if err != nil {
		return nil, err
	}
	b := &bed{dir: dir, kinePort: ports[0], server: fmt.Sprintf("https://127.0.0.1:%d", ports[1]), keys: k}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(k.caPEM)
	b.client = &http.Client{
		Timeout:   5 * time.Second,
		Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, DisableKeepAlives: true},
	}
	if err := b.files(); err != nil {
		return nil, err
	}

	at := func(names ...string) string { return filepath.Join(append([]string{dir}, names...)...) }
	b.parts = map[string]*part{
		"kine": {program: filepath.Join(bin, "kine"), args: []string{
			"--endpoint", "sqlite://" + at("kine.db") + "?_journal=WAL&cache=shared&_busy_timeout=30000&_txlock=immediate",
			"--listen-address", fmt.Sprintf("tcp://127.0.0.1:%d", ports[0]),
			"--metrics-bind-address", "0",
		}},
		"kube-apiserver": {program: self, args: []string{
			fmt.Sprintf("--etcd-servers=http://127.0.0.1:%d", ports[0]),
			fmt.Sprintf("--secure-port=%d", ports[1]),
			"--bind-address=127.0.0.1",
			"--advertise-address=127.0.0.1",
			"--endpoint-reconciler-type=none",
			"--disable-admission-plugins=TaintNodesByCondition",         // a new node is tainted for five seconds otherwise
			"--feature-gates=UnknownVersionInteroperabilityProxy=false", // it renews a lease every few seconds
			"--cert-dir=" + at("keys"),
			"--tls-cert-file=" + at("keys", "server.crt"),
			"--tls-private-key-file=" + at("keys", "server.key"),
			"--client-ca-file=" + at("keys", "ca.crt"),
			"--token-auth-file=" + at("keys", "tokens.csv"),
			"--service-account-key-file=" + at("keys", "sa.key"),
			"--service-account-signing-key-file=" + at("keys", "sa.key"),
			"--service-account-issuer=https://kubernetes.default.svc",
			"--authorization-mode=RBAC",
			"--service-cluster-ip-range=10.43.0.0/16",
			"--allow-privileged=true",
			"--audit-policy-file=" + at("audit-policy.yaml"),
			"--audit-log-path=" + at("audit.log"),
			"--audit-log-format=json",
			"--audit-log-mode=blocking", // a finished request is in the file before its answer is read
			"--audit-log-maxsize=1024",  // MB; a rotation would lose lines that a test counts
		}},
		"kube-controller-manager": {program: self, args: []string{
			"--kubeconfig=" + at("keys", "kube-controller-manager.kubeconfig"),
			"--leader-elect=false",
			"--secure-port=0",
			"--use-service-account-credentials=false", // true costs five seconds of start
			"--service-account-private-key-file=" + at("keys", "sa.key"),
			"--root-ca-file=" + at("keys", "ca.crt"),
			"--node-monitor-grace-period=1000h", // the fake node sends no heartbeats, so that an idle cluster writes nothing
		}},
		"kube-scheduler": {program: self, args: []string{
			"--kubeconfig=" + at("keys", "kube-scheduler.kubeconfig"),
			"--leader-elect=false",
			"--secure-port=0",
		}},
		"kwok": {program: filepath.Join(bin, "kwok"), args: []string{
			"--kubeconfig=" + at("keys", "kwok.kubeconfig"),
			"--config=" + at("stages", "all.yaml"),
			"--manage-all-nodes=true",
			"--node-lease-duration-seconds=0", // no lease either
			"--cidr=10.42.0.0/16",
			"--node-ip=127.0.0.1",
			fmt.Sprintf("--server-address=127.0.0.1:%d", ports[2]),
		}},
	}
	return b, nil
}

// files writes kubeconfigs, audit policy and kwok's stages.
func (b *bed) files() error {
	write := func(name string, text []byte) error {
		return os.WriteFile(filepath.Join(b.dir, name), text, 0o600)
	}
	cert, err := b.keys.certKubeconfig(b.server, filepath.Join(b.dir, "keys"))
	if err != nil {
		return err
	}
	all := map[string][]byte{
		"kubeconfig":        b.keys.kubeconfig(b.server, "gitopsd"),
		"kubeconfig.admin":  b.keys.kubeconfig(b.server, "admin"),
		"kubeconfig.k3s":    cert,
		"audit-policy.yaml": auditPolicy,
	}
	for _, user := range numbered("gitopsd-", 100) {
		all["users/"+user] = b.keys.kubeconfig(b.server, user)
	}
	for _, user := range []string{"kube-controller-manager", "kube-scheduler", "kwok"} {
		all["keys/"+user+".kubeconfig"] = b.keys.kubeconfig(b.server, user)
	}
	entries, err := stages.ReadDir("stages")
	if err != nil {
		return err
	}
	var joined bytes.Buffer
	for _, entry := range entries {
		text, err := stages.ReadFile("stages/" + entry.Name())
		if err != nil {
			return err
		}
		joined.WriteString("---\n")
		joined.Write(text)
	}
	all["stages/all.yaml"] = joined.Bytes()
	for name, text := range all {
		if err := write(name, text); err != nil {
			return err
		}
	}
	return nil
}

// start runs a part and returns once it answers. Only the main thread may call it.
func (b *bed) start(name string, limit time.Time) error {
	begun := time.Now()
	p := b.parts[name]
	log, err := os.OpenFile(filepath.Join(b.dir, "logs", name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := &exec.Cmd{
		Path:        p.program,
		Args:        append([]string{name}, p.args...),
		Env:         []string{"PATH=/usr/bin:/bin", "HOME=" + filepath.Join(b.dir, "home")},
		Dir:         b.dir,
		Stdout:      log,
		Stderr:      log,
		SysProcAttr: &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true},
	}
	b.mu.Lock()
	if b.ending || p.cmd != nil {
		b.mu.Unlock()
		return fmt.Errorf("%s runs already", name)
	}
	if err := cmd.Start(); err != nil {
		b.mu.Unlock()
		return err
	}
	gone := make(chan struct{})
	p.cmd, p.gone = cmd, gone
	b.mu.Unlock()
	go func() {
		err := cmd.Wait()
		b.mu.Lock()
		if p.cmd == cmd {
			p.cmd = nil
			if !b.ending {
				fmt.Fprintf(os.Stderr, "testcluster: %s ended by itself (%v); its log says:\n%s", name, err, tail(log.Name()))
			}
		}
		b.mu.Unlock()
		close(gone)
	}()

	if err := b.await(name, gone, limit); err != nil {
		return err
	}
	b.note(name, begun)
	return nil
}

// await returns when a part does its work, as far as one can ask it.
func (b *bed) await(name string, gone chan struct{}, limit time.Time) error {
	var ready func() error
	switch name {
	case "kine":
		ready = func() error {
			conn, err := net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", b.kinePort), time.Second)
			if err == nil {
				conn.Close()
			}
			return err
		}
	case "kube-apiserver":
		ready = func() error {
			_, err := b.ask("GET", "/readyz", nil)
			return err
		}
	default:
		return nil
	}
	return poll(gone, limit, ready)
}

// settle registers the node and waits until pods can run.
func (b *bed) settle(limit time.Time) error {
	begun := time.Now()
	node := map[string]any{
		"apiVersion": "v1", "kind": "Node",
		"metadata": map[string]any{
			"name":        nodeName,
			"annotations": map[string]string{"kwok.x-k8s.io/node": "fake"},
			"labels": map[string]string{
				"kubernetes.io/hostname": nodeName, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64",
				"node-role.kubernetes.io/control-plane": "true",
			},
		},
	}
	err := poll(nil, limit, func() error {
		_, err := b.ask("POST", "/api/v1/nodes", node)
		if err != nil && strings.Contains(err.Error(), "409") {
			return nil
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("registering the node: %w", err)
	}
	err = poll(nil, limit, func() error {
		if _, err := b.ask("GET", "/api/v1/namespaces/default/serviceaccounts/default", nil); err != nil {
			return err
		}
		text, err := b.ask("GET", "/api/v1/nodes/"+nodeName, nil)
		if err != nil {
			return err
		}
		return schedulable(text)
	})
	if err != nil {
		return fmt.Errorf("waiting for the node and the default ServiceAccount: %w", err)
	}
	b.note("node "+nodeName, begun)
	return nil
}

// schedulable is nil for a node that is Ready and untainted.
func schedulable(text []byte) error {
	var node struct {
		Spec   struct{ Taints []any }
		Status struct {
			Conditions []struct{ Type, Status string }
		}
	}
	if err := json.Unmarshal(text, &node); err != nil {
		return err
	}
	if len(node.Spec.Taints) > 0 {
		return errors.New("the node is still tainted")
	}
	for _, condition := range node.Status.Conditions {
		if condition.Type == "Ready" && condition.Status == "True" {
			return nil
		}
	}
	return errors.New("the node is not Ready")
}

// ask sends one request to the API server as user testcluster.
func (b *bed) ask(method, path string, body any) ([]byte, error) {
	text, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequest(method, b.server+path, bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Authorization", "Bearer "+b.keys.tokens["testcluster"])
	request.Header.Set("Content-Type", "application/json")
	answer, err := b.client.Do(request)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	got, err := io.ReadAll(io.LimitReader(answer.Body, 1<<20))
	if err != nil {
		return nil, err
	}
	if answer.StatusCode >= 300 {
		return nil, fmt.Errorf("%s %s: %s: %s", method, path, answer.Status, bytes.TrimSpace(got))
	}
	return got, nil
}

// stop kills a part and waits until it is gone.
func (b *bed) stop(name string) error {
	b.mu.Lock()
	p := b.parts[name]
	if p.cmd == nil {
		b.mu.Unlock()
		return fmt.Errorf("%s does not run", name)
	}
	cmd, gone := p.cmd, p.gone
	p.cmd = nil
	b.mu.Unlock()
	if err := cmd.Process.Kill(); err != nil {
		return err
	}
	<-gone // SIGKILL cannot be ignored
	return nil
}

func (b *bed) signal(name string, which syscall.Signal) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.parts[name].cmd == nil {
		return fmt.Errorf("%s does not run", name)
	}
	return b.parts[name].cmd.Process.Signal(which)
}

// end kills every part and then this process.
func (b *bed) end(code int) {
	b.mu.Lock()
	b.ending = true
	var wait []chan struct{}
	for _, p := range b.parts {
		if p.cmd != nil {
			_ = p.cmd.Process.Kill()
			wait = append(wait, p.gone)
		}
	}
	b.mu.Unlock()
	for _, gone := range wait {
		<-gone
	}
	if b.remove {
		_ = os.RemoveAll(b.dir)
	}
	os.Exit(code)
}

func (b *bed) pids() map[string]int {
	b.mu.Lock()
	defer b.mu.Unlock()
	pids := map[string]int{}
	for name, p := range b.parts {
		if p.cmd != nil {
			pids[name] = p.cmd.Process.Pid
		}
	}
	return pids
}

func (b *bed) note(what string, since time.Time) {
	fmt.Fprintf(os.Stderr, "testcluster: %-24s %6d ms\n", what, time.Since(since).Milliseconds())
}

// poll asks every 50 ms until there is no error, the process is gone, or the limit has passed.
func poll(gone chan struct{}, limit time.Time, ready func() error) error {
	for {
		err := ready()
		if err == nil {
			return nil
		}
		if time.Now().After(limit) {
			return fmt.Errorf("not ready in time: %w", err)
		}
		select {
		case <-gone:
			return errors.New("it ended while it was starting")
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// freePorts finds loopback ports below the kernel's ephemeral range, so that no outgoing
// connection takes a part's port while that part is stopped.
func freePorts(count int) ([]int, error) {
	var ports []int
	for try := 0; try < 1000 && len(ports) < count; try++ {
		port := 20000 + rand.Intn(12000)
		listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			continue
		}
		defer listener.Close()
		ports = append(ports, port)
	}
	if len(ports) < count {
		return nil, errors.New("no free port between 20000 and 32000")
	}
	return ports, nil
}

// tail is the end of a log, for an error message.
func tail(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return err.Error() + "\n"
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	if len(lines) > 15 {
		lines = lines[len(lines)-15:]
	}
	return strings.Join(lines, "\n") + "\n"
}
