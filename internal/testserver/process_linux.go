package testserver

import (
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"strings"
	"syscall"
)

func dieWithParent(cmd *exec.Cmd) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
}

// account is the user that a service runs as, and the root of its programs.
type account struct {
	root       root
	credential *syscall.Credential
}

// serviceAccount returns the account of a service that root should not run: its own,
// where there is one.
func serviceAccount(r root, name string) account {
	if os.Getuid() != 0 {
		return account{root: r}
	}
	uid, gid, ok := r.lookup(name)
	if !ok {
		return account{root: r}
	}
	return account{r, &syscall.Credential{Uid: uid, Gid: gid}}
}

// lookup returns the ids of a user of the root.
func (r root) lookup(name string) (uid, gid uint32, ok bool) {
	var ids [2]string
	if r == "" {
		u, err := user.Lookup(name)
		if err != nil {
			return 0, 0, false
		}
		ids = [2]string{u.Uid, u.Gid}
	} else {
		passwd, err := os.ReadFile(r.outside("/etc/passwd"))
		if err != nil {
			return 0, 0, false
		}
		for line := range strings.Lines(string(passwd)) {
			if fields := strings.Split(line, ":"); len(fields) > 3 && fields[0] == name {
				ids = [2]string{fields[2], fields[3]}
			}
		}
	}
	u, errU := strconv.ParseUint(ids[0], 10, 32)
	g, errG := strconv.ParseUint(ids[1], 10, 32)
	return uint32(u), uint32(g), errU == nil && errG == nil
}

// run makes cmd run as the account.
func (a account) run(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: a.credential, Chroot: string(a.root)}
}

// own gives a file or folder, as the test sees it, to the account.
func (a account) own(path string) error {
	if a.credential == nil {
		return nil
	}
	return os.Chown(path, int(a.credential.Uid), int(a.credential.Gid))
}

// pause stops a process where it stands; its connections stay open.
func (p *process) pause() error { return p.cmd.Process.Signal(syscall.SIGSTOP) }

// resume lets a paused process go on.
func (p *process) resume() error { return p.cmd.Process.Signal(syscall.SIGCONT) }
