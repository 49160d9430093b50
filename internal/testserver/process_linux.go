package testserver

import (
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"syscall"
)

func dieWithParent(cmd *exec.Cmd) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
}

// account is the user that a service runs as.
type account struct{ credential *syscall.Credential }

// serviceAccount returns the account of a service that root should not run: its own,
// where there is one.
func serviceAccount(name string) account {
	if os.Getuid() != 0 {
		return account{}
	}
	u, err := user.Lookup(name)
	if err != nil {
		return account{}
	}
	uid, errUID := strconv.ParseUint(u.Uid, 10, 32)
	gid, errGID := strconv.ParseUint(u.Gid, 10, 32)
	if errUID != nil || errGID != nil {
		return account{}
	}
	return account{&syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
}

// run makes cmd run as the account.
func (a account) run(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: a.credential}
}

// own gives a file or folder to the account.
func (a account) own(path string) error {
	if a.credential == nil {
		return nil
	}
	return os.Chown(path, int(a.credential.Uid), int(a.credential.Gid))
}
