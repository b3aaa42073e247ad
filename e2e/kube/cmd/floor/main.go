// The floor command is the least that a program with client-go can do to have claims provisioned, volumes deleted and
// attachments made: the writes that Kubernetes' storage contract demands, by protobuf, without client-side limits, from
// informers, and with no storage behind it. Benchmarks compare a real storage operator with it.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	storagelisters "k8s.io/client-go/listers/storage/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/util/workqueue"
)

const provisionerFinalizer = "external-provisioner.volume.kubernetes.io/finalizer"

func main() {
	kubeconfig := flag.String("kubeconfig", os.Getenv("KUBECONFIG"), "of the API server")
	driver := flag.String("driver", "floor.bench", "serves claims, volumes and attachments of this name")
	workers := flag.Int("workers", 32, "for each of provision, delete, and attach with detach")
	flag.Parse()
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	if err := run(ctx, *kubeconfig, *driver, *workers); err != nil {
		log.Fatal("floor: ", err)
	}
}

func run(ctx context.Context, kubeconfig, driver string, workers int) error {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return err
	}
	config.ContentType = "application/vnd.kubernetes.protobuf"
	config.QPS = -1
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	factory := informers.NewSharedInformerFactory(client, 0)
	f := &floor{
		client: client, driver: driver, finalizer: "external-attacher/" + strings.ReplaceAll(driver, ".", "-"),
		claims:      factory.Core().V1().PersistentVolumeClaims().Lister(),
		volumes:     factory.Core().V1().PersistentVolumes().Lister(),
		classes:     factory.Storage().V1().StorageClasses().Lister(),
		attachments: factory.Storage().V1().VolumeAttachments().Lister(),
	}
	controllers := []struct {
		informer  cache.SharedIndexInformer
		reconcile func(ctx context.Context, key string) error
	}{
		{factory.Core().V1().PersistentVolumeClaims().Informer(), f.provision},
		{factory.Core().V1().PersistentVolumes().Informer(), f.delete},
		{factory.Storage().V1().VolumeAttachments().Informer(), f.attach},
	}
	factory.Storage().V1().StorageClasses().Informer()
	for _, controller := range controllers {
		queue := workqueue.NewTypedRateLimitingQueue(workqueue.NewTypedItemExponentialFailureRateLimiter[string](
			100*time.Millisecond, 10*time.Second))
		defer queue.ShutDown()
		enqueue := func(object any) {
			if key, err := cache.DeletionHandlingMetaNamespaceKeyFunc(object); err == nil {
				queue.Add(key)
			}
		}
		if _, err := controller.informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
			AddFunc: enqueue, UpdateFunc: func(_, now any) { enqueue(now) }}); err != nil {
			return err
		}
		for range workers {
			go work(ctx, queue, controller.reconcile)
		}
	}
	factory.Start(ctx.Done())
	for kind, synced := range factory.WaitForCacheSync(ctx.Done()) {
		if !synced {
			return fmt.Errorf("no list of %v", kind)
		}
	}
	fmt.Println("ready")
	<-ctx.Done()
	return nil
}

func work(ctx context.Context, queue workqueue.TypedRateLimitingInterface[string], reconcile func(context.Context, string) error) {
	for {
		key, shutdown := queue.Get()
		if shutdown {
			return
		}
		if err := reconcile(ctx, key); err != nil {
			log.Printf("%s: %v", key, err)
			queue.AddRateLimited(key)
		} else {
			queue.Forget(key)
		}
		queue.Done(key)
	}
}

type floor struct {
	client      kubernetes.Interface
	driver      string
	finalizer   string // on attachments and their volumes
	claims      corelisters.PersistentVolumeClaimLister
	volumes     corelisters.PersistentVolumeLister
	classes     storagelisters.StorageClassLister
	attachments storagelisters.VolumeAttachmentLister
	done        sync.Map // what was written last, until the caches tell: nothing is written twice
}

// provision makes a claim's volume: one write.
func (f *floor) provision(ctx context.Context, key string) error {
	namespace, name, err := cache.SplitMetaNamespaceKey(key)
	if err != nil {
		return err
	}
	claim, err := f.claims.PersistentVolumeClaims(namespace).Get(name)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if claim.Spec.VolumeName != "" || claim.Annotations["volume.kubernetes.io/storage-provisioner"] != f.driver ||
		claim.DeletionTimestamp != nil || claim.Spec.StorageClassName == nil {
		return nil
	}
	step := "provisioned " + string(claim.UID)
	if _, done := f.done.Load(step); done {
		return nil
	}
	if _, err := f.volumes.Get("pvc-" + string(claim.UID)); err == nil {
		return nil
	}
	class, err := f.classes.Get(*claim.Spec.StorageClassName)
	if err != nil {
		return err
	}
	_, err = f.client.CoreV1().PersistentVolumes().Create(ctx, f.volume(claim, class), metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		err = nil
	}
	return f.note(step, err)
}

func (f *floor) volume(claim *corev1.PersistentVolumeClaim, class *storagev1.StorageClass) *corev1.PersistentVolume {
	name := "pvc-" + string(claim.UID)
	mode := corev1.PersistentVolumeFilesystem
	return &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{
			Name: name,
			Annotations: map[string]string{
				"pv.kubernetes.io/provisioned-by":                            f.driver,
				"volume.kubernetes.io/provisioner-deletion-secret-name":      "",
				"volume.kubernetes.io/provisioner-deletion-secret-namespace": "",
			},
			Finalizers: []string{provisionerFinalizer, f.finalizer},
		},
		Spec: corev1.PersistentVolumeSpec{
			AccessModes:                   claim.Spec.AccessModes,
			VolumeMode:                    &mode,
			Capacity:                      corev1.ResourceList{corev1.ResourceStorage: claim.Spec.Resources.Requests[corev1.ResourceStorage]},
			PersistentVolumeReclaimPolicy: *class.ReclaimPolicy,
			StorageClassName:              class.Name,
			ClaimRef: &corev1.ObjectReference{APIVersion: "v1", Kind: "PersistentVolumeClaim", Namespace: claim.Namespace,
				Name: claim.Name, UID: claim.UID, ResourceVersion: claim.ResourceVersion},
			PersistentVolumeSource: corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{
				Driver: f.driver, VolumeHandle: "bench/" + name, FSType: "ext4",
				VolumeAttributes: map[string]string{"storage.kubernetes.io/csiProvisionerIdentity": "floor"},
			}},
		},
	}
}

// delete takes a released volume away: its delete, and one patch for the finalizers.
func (f *floor) delete(ctx context.Context, name string) error {
	volume, err := f.volumes.Get(name)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	step := "deleted " + string(volume.UID)
	if _, done := f.done.Load(step); done {
		return nil
	}
	if volume.Spec.CSI == nil || volume.Spec.CSI.Driver != f.driver || volume.Status.Phase != corev1.VolumeReleased ||
		!slices.Contains(volume.Finalizers, provisionerFinalizer) {
		return nil
	}
	if volume.DeletionTimestamp == nil {
		err := f.client.CoreV1().PersistentVolumes().Delete(ctx, name,
			metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &volume.UID}})
		if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
			return nil
		}
		if err != nil {
			return err
		}
	}
	patch, err := withoutFinalizers(volume.Finalizers, provisionerFinalizer, f.finalizer)
	if err != nil {
		return err
	}
	_, err = f.client.CoreV1().PersistentVolumes().Patch(ctx, name, types.JSONPatchType, patch, metav1.PatchOptions{})
	return f.note(step, err)
}

// attach serves an attachment: metadata, then status; and on its way out the finalizer.
func (f *floor) attach(ctx context.Context, name string) error {
	attachment, err := f.attachments.Get(name)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if attachment.Spec.Attacher != f.driver {
		return nil
	}
	attachments := f.client.StorageV1().VolumeAttachments()
	if attachment.DeletionTimestamp != nil {
		if !slices.Contains(attachment.Finalizers, f.finalizer) {
			return nil
		}
		step := "detached " + string(attachment.UID)
		if _, done := f.done.Load(step); done {
			return nil
		}
		patch, err := withoutFinalizers(attachment.Finalizers, f.finalizer)
		if err != nil {
			return err
		}
		_, err = attachments.Patch(ctx, name, types.JSONPatchType, patch, metav1.PatchOptions{})
		return f.note(step, err)
	}
	step := "attached " + string(attachment.UID)
	if _, done := f.done.Load(step); done || attachment.Status.Attached {
		return nil
	}
	if !slices.Contains(attachment.Finalizers, f.finalizer) {
		patch, err := json.Marshal(map[string]any{"metadata": map[string]any{
			"finalizers":  append(slices.Clone(attachment.Finalizers), f.finalizer),
			"annotations": map[string]string{"csi.alpha.kubernetes.io/node-id": attachment.Spec.NodeName}}})
		if err != nil {
			return err
		}
		if _, err = attachments.Patch(ctx, name, types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
			return f.note(step, err)
		}
	}
	patch := []byte(`{"status":{"attached":true,"attachmentMetadata":{"generation":"1"}}}`)
	_, err = attachments.Patch(ctx, name, types.MergePatchType, patch, metav1.PatchOptions{}, "status")
	return f.note(step, err)
}

// withoutFinalizers is a JSON patch that takes the names off the list. It starts at the end, so that the places before
// stay what they are, and tests that each is still where it was seen.
func withoutFinalizers(list []string, names ...string) ([]byte, error) {
	type operation struct {
		Op    string `json:"op"`
		Path  string `json:"path"`
		Value string `json:"value,omitempty"`
	}
	var patch []operation
	for i := len(list) - 1; i >= 0; i-- {
		if slices.Contains(names, list[i]) {
			path := fmt.Sprintf("/metadata/finalizers/%d", i)
			patch = append(patch, operation{"test", path, list[i]}, operation{Op: "remove", Path: path})
		}
	}
	return json.Marshal(patch)
}

// note remembers a step that came to its end. What is gone needs no more steps.
func (f *floor) note(step string, err error) error {
	if err == nil || apierrors.IsNotFound(err) {
		f.done.Store(step, nil)
		return nil
	}
	return err
}
