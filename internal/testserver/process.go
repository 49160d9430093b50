package testserver

import (
	"os/exec"
	"runtime"
)

// process is a server that ends no later than this process does, where the system
// can see to that.
type process struct {
	cmd   *exec.Cmd
	ended chan struct{}
}

func startProcess(cmd *exec.Cmd) (*process, error) {
	dieWithParent(cmd)
	p := &process{cmd: cmd, ended: make(chan struct{})}
	started := make(chan error, 1)
	go func() { // ends with the process, for which kill waits
		// Linux takes the thread that started a process for its parent: the process
		// would die with that thread, not with the program.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // how it ended is in its log
			close(p.ended)
		}
	}()
	return p, <-started
}

// kill ends the process without letting it clean up, and waits until it is gone.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // an error: it has ended already
	<-p.ended
}
