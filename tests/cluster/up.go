package main

// `testcluster up`: one cluster in one directory, for as long as stdin stays open.
//
// It starts kine (SQLite), kube-apiserver, kube-controller-manager, kube-scheduler and kwok with
// one fake node, all on free loopback ports. When the node is Ready and the default
// ServiceAccount exists it prints one JSON line:
//
//	{"kubeconfig":PATH,"server":URL,"audit":PATH,"node":NAME,"ready_ms":N,"pids":{"kine":N,…},…}
//
// Then it obeys lines on stdin, each answered by one JSON line {"ok":…}:
//
//	stop PART     kill it (SIGKILL: the API is gone at once, as in a power cut)
//	start PART    start it again, same port, same data; answers when it is ready
//	freeze PART   SIGSTOP: connections stay open and nobody answers
//	thaw PART     SIGCONT
//
// At the end of stdin, at SIGTERM, or when it dies itself, every child is killed.
//
// Below DIR: kubeconfig (user gitopsd), kubeconfig.admin (user admin), kubeconfig.k3s (client
// certificate, as k3s writes it), audit.log (JSON lines, one per finished request), kine.db,
// logs/PART.log, keys/, home/, users/gitopsd-N (kubeconfigs of numbered users, for tests that share
// a cluster and count their own requests). With --remove the directory goes when the cluster does.
// Children get a HOME of their own and no environment: the caller's
// kubeconfig is neither read nor written.

import (
	"bufio"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// readyLimit bounds the whole start: about 8 s on two idle cores, and the machine may be building.
const readyLimit = 4 * time.Minute

func up(args []string) {
	flags := flag.NewFlagSet("testcluster up", flag.ExitOnError)
	dir := flags.String("dir", "", "directory of the cluster; made if missing")
	bin := flags.String("bin", "", "directory that holds kine and kwok (default: where testcluster is)")
	remove := flags.Bool("remove", false, "remove DIR at the end")
	_ = flags.Parse(args)
	if *dir == "" || flags.NArg() > 0 {
		fmt.Fprintln(os.Stderr, "testcluster up: --dir DIR is needed, and nothing but flags")
		os.Exit(2)
	}
	if *bin == "" {
		self, err := os.Executable()
		if err != nil {
			fail(err)
		}
		*bin = filepath.Dir(self)
	}

	// The parent-death signal is tied to the thread that forked, so all forks are made here.
	runtime.LockOSThread()
	started := time.Now()
	b, err := newBed(*dir, *bin)
	if err != nil {
		fail(err)
	}
	b.remove = *remove

	commands := make(chan string)
	go func() {
		input := bufio.NewScanner(os.Stdin)
		for input.Scan() {
			commands <- strings.TrimSpace(input.Text())
		}
		b.end(0)
	}()
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	// A caller that went away without closing stdin shows as a broken pipe on our output.
	signal.Ignore(syscall.SIGPIPE)
	go func() {
		<-signals
		b.end(0)
	}()

	for _, name := range order {
		if err := b.start(name, started.Add(readyLimit)); err != nil {
			fmt.Fprintf(os.Stderr, "testcluster: %s: %v\n", name, err)
			b.end(1)
		}
	}
	if err := b.settle(started.Add(readyLimit)); err != nil {
		fmt.Fprintf(os.Stderr, "testcluster: %v\n", err)
		b.end(1)
	}
	say(map[string]any{
		"kubeconfig":       filepath.Join(b.dir, "kubeconfig"),
		"kubeconfig_admin": filepath.Join(b.dir, "kubeconfig.admin"),
		"kubeconfig_k3s":   filepath.Join(b.dir, "kubeconfig.k3s"),
		"server":           b.server,
		"audit":            filepath.Join(b.dir, "audit.log"),
		"kine_db":          filepath.Join(b.dir, "kine.db"),
		"node":             nodeName,
		"ready_ms":         time.Since(started).Milliseconds(),
		"pids":             b.pids(),
	})
	b.note("ready", started)

	for line := range commands {
		obey(b, line)
	}
}

// obey carries out one line of stdin and answers it.
func obey(b *bed, line string) {
	begun := time.Now()
	verb, name, _ := strings.Cut(line, " ")
	err := func() error {
		if _, known := b.parts[name]; !known {
			return fmt.Errorf("no part is called %q; there are %s", name, strings.Join(order, ", "))
		}
		switch verb {
		case "stop":
			return b.stop(name)
		case "start":
			return b.start(name, time.Now().Add(2*time.Minute))
		case "freeze":
			return b.signal(name, syscall.SIGSTOP)
		case "thaw":
			return b.signal(name, syscall.SIGCONT)
		}
		return fmt.Errorf("unknown command %q; there are stop, start, freeze, thaw", verb)
	}()
	answer := map[string]any{"ok": err == nil, "part": name, "ms": time.Since(begun).Milliseconds()}
	if err != nil {
		answer["error"] = err.Error()
	} else if verb == "start" {
		answer["pid"] = b.pids()[name]
	}
	say(answer)
}

// say prints one JSON line on stdout.
func say(value any) {
	text, err := json.Marshal(value)
	if err != nil {
		fail(err)
	}
	if _, err := os.Stdout.Write(append(text, '\n')); err != nil && !errors.Is(err, io.ErrClosedPipe) {
		fmt.Fprintf(os.Stderr, "testcluster: nobody reads stdout: %v\n", err)
	}
}

func fail(err error) {
	fmt.Fprintf(os.Stderr, "testcluster: %v\n", err)
	os.Exit(1)
}
