//go:build !linux

package testserver

import (
	"errors"
	"os/exec"
)

// dieWithParent does nothing: the end of the test ends the process, and a test that is
// killed leaves it behind.
func dieWithParent(*exec.Cmd) {}

// account is the user of this process: packages of other systems install services for
// the user.
type account struct{}

func serviceAccount(root, string) account { return account{} }

func (account) run(*exec.Cmd) {}

func (account) own(string) error { return nil }

func (*process) pause() error { return errors.ErrUnsupported }

func (*process) resume() error { return errors.ErrUnsupported }
