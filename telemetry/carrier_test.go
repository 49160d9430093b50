package telemetry

import (
	"context"
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

const example = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"

// The short cut reads what the propagator reads, or nothing.
func FuzzShortCutReadsWhatThePropagatorReads(f *testing.F) {
	for _, seed := range []string{
		example, example[:54] + "1", example[:53] + "02", "01" + example[2:], "00-" + example[3:35] + "-0000000000000000-00",
		"00-00000000000000000000000000000000-b7ad6b7169203331-00", "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-00", "", "00-",
	} {
		f.Add(seed, "")
		f.Add(seed, "a=b")
	}
	f.Fuzz(func(t *testing.T, parent, state string) {
		md := message.Metadata{traceParentKey: parent}
		if state != "" {
			md[traceStateKey] = state
		}
		got, ok := notSampled(md)
		want := trace.SpanContextFromContext(propagation.TraceContext{}.Extract(context.Background(), carrier(md)))
		if ok && !got.Equal(want) {
			t.Errorf("%q is %v, and by the propagator %v", parent, got, want)
		}
		if ok && (!got.IsValid() || !got.IsRemote() || got.IsSampled()) {
			t.Errorf("%q is %v", parent, got)
		}
	})
}

func TestShortCutIsTaken(t *testing.T) {
	t.Parallel()
	sc, ok := notSampled(message.Metadata{traceParentKey: example})
	if !ok {
		t.Fatal("it is not taken")
	}
	if again := unsampledParent(sc); again != example {
		t.Errorf("%s is written as %s", example, again)
	}
	md := message.Metadata{}
	propagation.TraceContext{}.Inject(trace.ContextWithSpanContext(context.Background(), sc), carrier(md))
	if md[traceParentKey] != example {
		t.Errorf("the propagator writes %s", md[traceParentKey])
	}
	for _, other := range []string{example[:54] + "1", "01" + example[2:], example[:20], example + "-more"} {
		if _, ok := notSampled(message.Metadata{traceParentKey: other}); ok {
			t.Errorf("it is taken for %s", other)
		}
	}
}
