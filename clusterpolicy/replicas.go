package clusterpolicy

import (
	"context"
	"fmt"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/dynamic"
)

const (
	leaseLife    = 3 * time.Minute // a replica that was silent for longer is gone
	leaseHistory = time.Hour       // then its lease is removed
	leasePrefix  = "policies-"
	managedBy    = "app.kubernetes.io/managed-by"
	ourselves    = "kubeguardian"
)

// OwnLease reports whether labels are those of a Lease by which replicas tell each
// other that they live.
func OwnLease(labels map[string]string) bool { return labels[managedBy] == ourselves }

// replicas tell each other by leases which of them live, so that what those that
// are gone wrote into status can be removed.
type replicas struct {
	leases dynamic.ResourceInterface
	own    string
	next   time.Time // when the own lease is renewed
	known  map[string]bool
}

func newReplicas(client dynamic.Interface, namespace, own string) *replicas {
	return &replicas{leases: client.Resource(coordinationv1.SchemeGroupVersion.WithResource("leases")).Namespace(namespace), own: own}
}

// living returns the replicas that live. It renews the own lease a few times in
// the life of one, and looks anew when it is asked about one that it does not know:
// whoever writes a status has a lease before. With an error, nobody may be taken
// for gone.
func (r *replicas) living(ctx context.Context, now time.Time, asked map[string]bool) (map[string]bool, error) {
	if now.Before(r.next) && r.knows(asked) {
		return r.known, nil
	}
	if err := r.renew(ctx, now); err != nil {
		return nil, fmt.Errorf("renew the lease of replica %s: %w", r.own, err)
	}
	list, err := r.leases.List(ctx, metav1.ListOptions{LabelSelector: managedBy + "=" + ourselves})
	if err != nil {
		return nil, fmt.Errorf("list the leases of replicas: %w", err)
	}
	known := map[string]bool{r.own: true}
	for i := range list.Items {
		var lease coordinationv1.Lease
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(list.Items[i].Object, &lease); err != nil || lease.Spec.HolderIdentity == nil || lease.Spec.RenewTime == nil {
			continue // none of ours
		}
		switch age := now.Sub(lease.Spec.RenewTime.Time); {
		case age < leaseLife:
			known[*lease.Spec.HolderIdentity] = true
		case age > leaseHistory:
			if err := r.leases.Delete(ctx, lease.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{ResourceVersion: &lease.ResourceVersion}}); err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
				return nil, fmt.Errorf("remove the lease %s: %w", lease.Name, err)
			}
		}
	}
	r.known, r.next = known, now.Add(leaseLife/4)
	return known, nil
}

func (r *replicas) knows(asked map[string]bool) bool {
	for id := range asked {
		if !r.known[id] {
			return false
		}
	}
	return true
}

// renew writes the own lease.
func (r *replicas) renew(ctx context.Context, now time.Time) error {
	lease := &coordinationv1.Lease{
		TypeMeta:   metav1.TypeMeta{APIVersion: coordinationv1.SchemeGroupVersion.String(), Kind: "Lease"},
		ObjectMeta: metav1.ObjectMeta{Name: leasePrefix + r.own, Labels: map[string]string{managedBy: ourselves}},
		Spec: coordinationv1.LeaseSpec{
			HolderIdentity: &r.own, LeaseDurationSeconds: new(int32(leaseLife / time.Second)), RenewTime: new(metav1.NewMicroTime(now)),
		},
	}
	have, err := r.leases.Get(ctx, lease.Name, metav1.GetOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return err
	}
	if have != nil && err == nil {
		lease.ResourceVersion = have.GetResourceVersion()
	}
	object, convertErr := runtime.DefaultUnstructuredConverter.ToUnstructured(lease)
	if convertErr != nil {
		return convertErr
	}
	u := &unstructured.Unstructured{Object: object}
	if apierrors.IsNotFound(err) {
		_, err = r.leases.Create(ctx, u, metav1.CreateOptions{})
	} else {
		_, err = r.leases.Update(ctx, u, metav1.UpdateOptions{})
	}
	return err
}
