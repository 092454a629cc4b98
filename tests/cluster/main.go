// Command testcluster is the Kubernetes control plane of gitopsd's tests and demo in one program.
//
// It holds upstream's kube-apiserver, kube-controller-manager, kube-scheduler and kubectl, and
// acts as the one whose name it is called by, as k3s does. It is not k3s and does not claim to
// be: k3s's Go module is not served by the module proxy, its parts are.
//
// Called by its own name it offers `up`, which runs a whole cluster in one directory (see up.go).
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	_ "k8s.io/client-go/plugin/pkg/client/auth"
	"k8s.io/component-base/cli"
	"k8s.io/component-base/logs"
	"k8s.io/component-base/version"
	"k8s.io/kubectl/pkg/cmd"
	"k8s.io/kubectl/pkg/cmd/util"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllers "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	controlplane "k8s.io/kubernetes/pkg/controlplane/apiserver"
)

const usage = `testcluster: the control plane of gitopsd's test bed

  testcluster up --dir DIR [--bin DIR] [--remove]
                                         run a cluster in DIR until stdin ends
  testcluster kubectl …                  upstream kubectl
  testcluster --version

It also acts as kube-apiserver, kube-controller-manager, kube-scheduler, kubectl or k3s when it
is called by that name.
`

func main() {
	name := filepath.Base(os.Args[0])
	switch name {
	case "kube-apiserver":
		// The server's own lease is renewed every ten seconds by default. An idle cluster must
		// be quiet, because tests count datastore writes; the lease lives for an hour.
		controlplane.IdentityLeaseRenewIntervalPeriod = 20 * time.Minute
		os.Exit(cli.Run(apiserver.NewAPIServerCommand()))
	case "kube-controller-manager":
		os.Exit(cli.Run(controllers.NewControllerManagerCommand()))
	case "kube-scheduler":
		os.Exit(cli.Run(scheduler.NewSchedulerCommand()))
	case "kubectl":
		kubectl()
	default:
		own(name)
	}
}

// own handles the calls under the name testcluster or k3s.
func own(name string) {
	if len(os.Args) < 2 {
		fmt.Fprint(os.Stderr, usage)
		os.Exit(2)
	}
	switch os.Args[1] {
	case "kubectl":
		os.Args = os.Args[1:]
		kubectl()
	case "--version", "-v", "version":
		fmt.Printf("%s version %s\n", name, version.Get().GitVersion)
		fmt.Println("upstream Kubernetes components 1.37.2 from gitopsd's test bed, not k3s")
	case "up":
		up(os.Args[2:])
	case "--help", "-h", "help":
		fmt.Print(usage)
	default:
		fmt.Fprintf(os.Stderr, "%s: unknown command %q\n\n%s", name, os.Args[1], usage)
		os.Exit(2)
	}
}

// kubectl does what upstream's cmd/kubectl does.
func kubectl() {
	_, _ = logs.GlogSetter(cmd.GetLogVerbosity(os.Args))
	if err := cli.RunNoErrOutput(cmd.NewDefaultKubectlCommand()); err != nil {
		util.CheckErr(err)
	}
	os.Exit(0)
}
