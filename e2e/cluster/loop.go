package cluster

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"unsafe"
)

// Loop devices belong to the kernel, not to a namespace: one that a pod left configured outlives the cluster. Those over
// the cluster's own files are found by device and inode, which no other file can share.

const (
	loopClear     = 0x4C01 // LOOP_CLR_FD
	loopGetStatus = 0x4C05 // LOOP_GET_STATUS64
)

// loopInfo is struct loop_info64 of linux/loop.h.
type loopInfo struct {
	device, inode, rdevice, offset, sizeLimit uint64
	number, encryptType, keySize, flags       uint32
	fileName, cryptName                       [64]byte
	key                                       [32]byte
	init                                      [2]uint64
}

type fileID struct{ device, inode uint64 }

type loopDevice struct {
	path    string
	rdev    uint64 // the st_dev of a file system on it
	backing fileID
}

// listLoops returns the configured loop devices.
func listLoops() ([]loopDevice, error) {
	paths, err := filepath.Glob("/dev/loop[0-9]*")
	if err != nil {
		return nil, err
	}
	var loops []loopDevice
	for _, path := range paths {
		var stat syscall.Stat_t
		if syscall.Stat(path, &stat) != nil || stat.Mode&syscall.S_IFMT != syscall.S_IFBLK {
			continue
		}
		var info loopInfo
		if err := loopControl(path, loopGetStatus, uintptr(unsafe.Pointer(&info))); err != nil {
			continue // not configured
		}
		loops = append(loops, loopDevice{path, stat.Rdev, fileID{info.device, info.inode}})
	}
	return loops, nil
}

func loopControl(path string, request, argument uintptr) error {
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer file.Close()
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, file.Fd(), request, argument); errno != 0 {
		return errno
	}
	return nil
}

// ownLoops picks the loop devices over files of the cluster: files in its folder, and files in a file system that lies
// on such a loop device. The innermost come first, so that each can be released.
func ownLoops(loops []loopDevice, files map[fileID]bool) []loopDevice {
	var own []loopDevice
	taken := map[string]bool{}
	devices := map[uint64]bool{}
	for {
		found := false
		for _, loop := range loops {
			if !taken[loop.path] && (files[loop.backing] || devices[loop.backing.device]) {
				own = append([]loopDevice{loop}, own...)
				taken[loop.path], devices[loop.rdev], found = true, true, true
			}
		}
		if !found {
			return own
		}
	}
}

// releaseLoops frees every loop device over the cluster's files. One that is still mounted in a namespace that is about
// to vanish is freed by the kernel with its last mount.
func (c *Cluster) releaseLoops() ([]string, error) {
	files := map[fileID]bool{}
	filepath.WalkDir(c.Dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return nil
		}
		if entry.IsDir() && entry.Name() == "containerd" {
			return fs.SkipDir // image layers: large, and never a volume
		}
		var stat syscall.Stat_t
		if entry.Type().IsRegular() && syscall.Lstat(path, &stat) == nil {
			files[fileID{stat.Dev, stat.Ino}] = true
		}
		return nil
	})
	loops, err := listLoops()
	if err != nil {
		return nil, err
	}
	var released []string
	for _, loop := range ownLoops(loops, files) {
		if err := loopControl(loop.path, loopClear, 0); err != nil && err != syscall.ENXIO {
			return released, fmt.Errorf("release %s: %w", loop.path, err)
		}
		released = append(released, loop.path)
	}
	return released, nil
}
