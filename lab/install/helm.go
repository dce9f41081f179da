// Package install installs KubeGuardian's chart on a real node, as people do,
// and looks at what it does there and at what it leaves behind.
package install

import (
	"context"
	"fmt"
	"os"
	"time"

	"helm.sh/helm/v4/pkg/action"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	"helm.sh/helm/v4/pkg/cli"
	"helm.sh/helm/v4/pkg/kube"
)

// A Release is an installed chart.
type Release struct {
	Kubeconfig, Namespace, Name string
	Timeout                     time.Duration // of each action
}

func (r Release) configuration() (*action.Configuration, error) {
	settings := cli.New()
	settings.KubeConfig = r.Kubeconfig
	settings.SetNamespace(r.Namespace)
	c := action.NewConfiguration()
	if err := c.Init(settings.RESTClientGetter(), r.Namespace, os.Getenv("HELM_DRIVER")); err != nil {
		return nil, fmt.Errorf("reach the cluster: %w", err)
	}
	return c, nil
}

// Install installs the chart in a folder, and returns when it is ready.
func (r Release) Install(ctx context.Context, chart string, values map[string]any) error {
	c, err := r.configuration()
	if err != nil {
		return err
	}
	loaded, err := loader.LoadDir(chart)
	if err != nil {
		return fmt.Errorf("load %s: %w", chart, err)
	}
	i := action.NewInstall(c)
	i.ReleaseName, i.Namespace, i.CreateNamespace, i.Timeout = r.Name, r.Namespace, true, r.Timeout
	i.WaitStrategy = kube.StatusWatcherStrategy
	if _, err := i.RunWithContext(ctx, loaded, values); err != nil {
		return fmt.Errorf("install %s: %w", r.Name, err)
	}
	return nil
}

// Upgrade puts other values in place, and returns when they are.
func (r Release) Upgrade(ctx context.Context, chart string, values map[string]any) error {
	c, err := r.configuration()
	if err != nil {
		return err
	}
	loaded, err := loader.LoadDir(chart)
	if err != nil {
		return fmt.Errorf("load %s: %w", chart, err)
	}
	u := action.NewUpgrade(c)
	u.Namespace, u.Timeout, u.WaitStrategy = r.Namespace, r.Timeout, kube.StatusWatcherStrategy
	if _, err := u.RunWithContext(ctx, r.Name, loaded, values); err != nil {
		return fmt.Errorf("upgrade %s: %w", r.Name, err)
	}
	return nil
}

// Uninstall removes the release, and returns when it is gone.
func (r Release) Uninstall() error {
	c, err := r.configuration()
	if err != nil {
		return err
	}
	u := action.NewUninstall(c)
	u.Timeout, u.WaitStrategy = r.Timeout, kube.StatusWatcherStrategy
	if _, err := u.Run(r.Name); err != nil {
		return fmt.Errorf("uninstall %s: %w", r.Name, err)
	}
	return nil
}
