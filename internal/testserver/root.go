package testserver

import (
	"os"
	"os/exec"
	"path/filepath"
)

// root is a folder with the programs of another release of the operating system, which run
// with it as their root directory (chroot). "" is this system.
//
// Paths that belong to a server's command line, environment and configuration are those
// that the server sees; outside turns them into those that the test sees.
type root string

func (r root) outside(path string) string { return filepath.Join(string(r), path) }

// find returns the path, as the server sees it, of a program: the first of the folders,
// which are patterns, that has it. On this system PATH comes first.
func (r root) find(name string, folders ...string) string {
	if r == "" {
		if file, err := exec.LookPath(name); err == nil {
			return file
		}
	}
	for _, folder := range append(folders, "/usr/bin", "/usr/sbin") {
		if found, _ := filepath.Glob(r.outside(filepath.Join(folder, name))); len(found) > 0 {
			return found[len(found)-1][len(r):]
		}
	}
	return ""
}

// makeFolder makes a temporary folder and returns it as the server sees it.
func (r root) makeFolder(pattern string) (string, error) {
	in := os.TempDir()
	if r != "" {
		in = r.outside("/tmp")
	}
	dir, err := os.MkdirTemp(in, pattern)
	if err != nil {
		return "", err
	}
	return dir[len(r):], nil
}

// environment returns what a server's environment begins with: this process's, which says
// nothing about another root.
func (r root) environment() []string {
	if r == "" {
		return os.Environ()
	}
	return []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8"}
}
