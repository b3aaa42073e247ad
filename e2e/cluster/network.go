package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"syscall"
)

// Dial connects from this process to an address of the cluster's network, such as that of the API server.
func (c *Cluster) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	return inNetwork(c, func() (net.Conn, error) {
		var dialer net.Dialer
		return dialer.DialContext(ctx, network, address)
	})
}

// Listen makes this process a server in the cluster's network.
func (c *Cluster) Listen(address string) (net.Listener, error) {
	return inNetwork(c, func() (net.Listener, error) { return net.Listen("tcp", address) })
}

// inNetwork runs `open` on a thread that has entered the cluster's network, and takes the thread back afterwards; the sockets
// that `open` made stay there, whichever thread uses them. A thread is never ended for it: programs that this process
// started may be bound to the thread that started them (Pdeathsig).
func inNetwork[T any](c *Cluster, open func() (T, error)) (value T, err error) {
	pid := c.supervisorPID()
	if pid == 0 {
		return value, errNotUp
	}
	there, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", pid))
	if err != nil {
		return value, err
	}
	defer there.Close()
	runtime.LockOSThread()
	here, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		runtime.UnlockOSThread()
		return value, err
	}
	defer here.Close()
	if err := enterNetwork(there); err != nil {
		runtime.UnlockOSThread()
		return value, err
	}
	value, err = open()
	if back := enterNetwork(here); back != nil {
		return value, errors.Join(err, back) // the thread stays locked: nothing else may run in the wrong network
	}
	runtime.UnlockOSThread()
	return value, err
}

// The syscall package does not name setns for every processor.
var setnsNumber = map[string]uintptr{"amd64": 308, "arm64": 268}

// enterNetwork moves the calling thread, which must be locked.
func enterNetwork(namespace *os.File) error {
	if _, _, failed := syscall.RawSyscall(setnsNumber[runtime.GOARCH], namespace.Fd(), syscall.CLONE_NEWNET, 0); failed != 0 {
		return fmt.Errorf("enter the network of %s: %w", namespace.Name(), failed)
	}
	return nil
}
