package memory

import (
	"math/rand/v2"
	"slices"
	"testing"
)

func TestDequeKeepsOrderWhateverComesBack(t *testing.T) {
	t.Parallel()
	for seed := range uint64(50) {
		r := rand.New(rand.NewPCG(seed, 0))
		var d deque
		var model, out []uint64 // what is in d, and what was taken from it
		var next uint64
		for range 2000 {
			switch op := r.IntN(10); {
			case op < 4:
				next++
				d.pushBack(entry{seq: next, rec: &record{}})
				model = append(model, next)
			case op < 7 && len(model) > 0:
				e := d.popFront()
				if e.seq != model[0] || e.rec == nil {
					t.Fatalf("seed %d: popped %d; want %d", seed, e.seq, model[0])
				}
				model, out = model[1:], append(out, e.seq)
			case op >= 7 && len(out) > 0:
				i := r.IntN(len(out))
				d.insert(entry{seq: out[i], rec: &record{}})
				at, _ := slices.BinarySearch(model, out[i])
				model = slices.Insert(model, at, out[i])
				out = slices.Delete(out, i, i+1)
			}
			if d.n != len(model) {
				t.Fatalf("seed %d: %d entries; want %d", seed, d.n, len(model))
			}
		}
		for _, want := range model {
			if e := d.popFront(); e.seq != want {
				t.Fatalf("seed %d: popped %d; want %d", seed, e.seq, want)
			}
		}
	}
}

func TestDequeForgetsWhatWasTaken(t *testing.T) {
	t.Parallel()
	var d deque
	for i := range uint64(100) {
		d.pushBack(entry{seq: i, rec: &record{}})
	}
	for range 100 {
		d.insert(d.popFront())
		d.popFront()
	}
	for i, e := range d.ring {
		if e.rec != nil {
			t.Errorf("the ring still refers to a record at %d", i)
		}
	}
}
