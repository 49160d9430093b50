package testserver

import (
	"strings"
	"testing"
)

func TestProgramThatIsNotThere(t *testing.T) {
	t.Setenv("REQUIRE_SERVICES", "1")
	t.Setenv("TIDINGS_TEST_PROGRAM", "/nowhere/at-all")
	p := program{"Program", "TIDINGS_TEST_PROGRAM", []string{"go"}, "apt-get install program"}
	recorder := &tbRecorder{TB: t}
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.find(recorder)
	}()
	<-done
	if !strings.Contains(recorder.failed, "/nowhere/at-all") || !strings.Contains(recorder.failed, "apt-get install program") {
		t.Errorf("failed with %q, skipped with %q", recorder.failed, recorder.skipped)
	}
	t.Setenv("TIDINGS_TEST_PROGRAM", "")
	if p.find(t) == "" {
		t.Error("go is not found")
	}
}
