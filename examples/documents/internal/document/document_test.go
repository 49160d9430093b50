package document_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/gotidings/tidings/events"
	"github.com/gotidings/tidings/examples/documents/internal/database"
	"github.com/gotidings/tidings/examples/documents/internal/document"
	"github.com/gotidings/tidings/outbox"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newStore(t *testing.T) *document.Store {
	t.Helper()
	db, dialect, err := database.Open(t.Context(), "sqlite:"+filepath.ToSlash(filepath.Join(t.TempDir(), "x.db")), document.Schema...)
	if err != nil {
		t.Fatal(err)
	}
	ob, err := outbox.New(t.Context(), outbox.Config{DB: db, Dialect: dialect, Source: "documents"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(ob.Close(), db.Close()); err != nil {
			t.Error(err)
		}
	})
	return document.NewStore(db, ob)
}

func add(t *testing.T, store *document.Store) document.Document {
	t.Helper()
	return addAt(t, store, "", time.Now())
}

func addAt(t *testing.T, store *document.Store, id string, now time.Time) document.Document {
	t.Helper()
	d, err := document.New(id, "ada", "a.txt", "Dear Ada.", now)
	if err != nil {
		t.Fatal(err)
	}
	if d, err = store.Add(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	return d
}

func TestNew(t *testing.T) {
	t.Parallel()
	id := events.NewID()
	for _, test := range []struct {
		id, name, content string
		faults            int
	}{
		{"", "a.txt", "", 0},
		{id, strings.Repeat("ä", document.MaxName), "text", 0},
		{strings.ToUpper(id), "a.txt", "", 1},
		{"7", "", "\xff", 3},
		{"", "a\tb", strings.Repeat("a", document.MaxContent+1), 2},
		{"", strings.Repeat("ä", document.MaxName+1), "\x00", 2},
	} {
		_, err := document.New(test.id, "ada", test.name, test.content, time.Now())
		faults := 0
		if err != nil {
			faults = len(strings.Split(err.Error(), "\n"))
		}
		if faults != test.faults {
			t.Errorf("%.20q %.20q %.20q: %v, want %d faults", test.id, test.name, test.content, err, test.faults)
		}
	}
}

// The row and the version that a reader has agree with what was written, and a second writer
// of the same version is refused.
func TestConflict(t *testing.T) {
	t.Parallel()
	store := newStore(t)
	first := add(t, store)
	second := first
	first.Begin(document.Classify, 2*time.Second)
	first.Results = document.Results{Text: "Dear Ada.", Words: 2, Degraded: []document.Step{document.Extract}}
	if err := store.Save(t.Context(), &first); err != nil {
		t.Fatal(err)
	}
	second.Fail("no")
	if err := store.Save(t.Context(), &second); !errors.Is(err, document.ErrConflict) || second.Version != 1 {
		t.Errorf("version %d, %v", second.Version, err)
	}
	got, err := store.Get(t.Context(), first.ID)
	if err != nil || fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", first) || got.Progress != 25 || got.Version != 2 {
		t.Errorf("got  %+v, %v\nwant %+v", got, err, first)
	}
}

func TestList(t *testing.T) {
	t.Parallel()
	store := newStore(t)
	var ids []string
	now := time.Now()
	for i := range 5 {
		d := addAt(t, store, fmt.Sprintf("%08x-0000-4000-8000-000000000000", 1<<(4*i%5)), now.Add(time.Duration(i)*time.Millisecond)) // ids of any order
		d.Results = document.Results{Text: "Dear Ada.", Words: 2}
		if err := store.Save(t.Context(), &d); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, d.ID)
	}
	slices.Reverse(ids)
	for owner, before := range map[string]string{"ada": events.NewID(), "bob": ids[1]} {
		if _, err := store.List(t.Context(), document.Query{Owner: owner, Before: before}); !errors.Is(err, document.ErrNotFound) {
			t.Errorf("%s before %s: %v", owner, before, err)
		}
	}
	for _, test := range []struct {
		q    document.Query
		want []string
	}{
		{document.Query{Owner: "ada"}, ids},
		{document.Query{Owner: "ada", Limit: 2}, ids[:2]},
		{document.Query{Owner: "ada", Limit: 2, Before: ids[1]}, ids[2:4]},
		{document.Query{Owner: "ada", Status: document.Queued}, ids},
		{document.Query{Owner: "ada", Status: document.Failed}, nil},
		{document.Query{Owner: "bob"}, nil},
	} {
		list, err := store.List(t.Context(), test.q)
		var got []string
		for _, d := range list {
			got = append(got, d.ID)
			if d.Content != "" || d.Results.Text != "" || d.Name != "a.txt" || d.Results.Words != 2 {
				t.Errorf("%+v", d)
			}
		}
		if err != nil || !slices.Equal(got, test.want) {
			t.Errorf("%+v: %q, %v, want %q", test.q, got, err, test.want)
		}
	}
}

// A processor goes on where the last one has stopped, and does nothing twice that is done.
func TestProcess(t *testing.T) {
	t.Parallel()
	store := newStore(t)
	d := add(t, store)
	var did []document.Step
	var broken error
	steps := make(map[document.Step]document.StepFunc)
	for _, step := range document.Steps {
		steps[step] = func(_ context.Context, d *document.Document) error {
			did = append(did, step)
			if step == document.Summarise && broken != nil {
				return broken
			}
			d.Results.Words++
			return nil
		}
	}
	p := document.NewProcessor(store, steps)
	broken = errors.New("not now")
	if err := p.Process(t.Context(), d.ID); !errors.Is(err, broken) {
		t.Fatalf("error is %v", err)
	}
	if got, err := store.Get(t.Context(), d.ID); err != nil || got.Status != document.Processing || got.Step != document.Summarise || got.Progress != 50 {
		t.Errorf("in between: %+v, %v", got, err)
	}
	broken, did = nil, nil
	for range 2 { // the second time, it is final
		if err := p.Process(t.Context(), d.ID); err != nil {
			t.Fatal(err)
		}
	}
	got, err := store.Get(t.Context(), d.ID)
	if want := document.Steps[2:]; err != nil || got.Status != document.Processed || got.Results.Words != 4 || !slices.Equal(did, want) {
		t.Errorf("document is %+v, %v; done again: %q, want %q", got, err, did, want)
	}
	if err := p.GiveUp(t.Context(), d.ID, "late"); err != nil {
		t.Error(err)
	}
	if got, err := store.Get(t.Context(), d.ID); err != nil || got.Status != document.Processed {
		t.Errorf("a processed document was given up: %+v, %v", got, err)
	}

	d = add(t, store)
	broken = fmt.Errorf("%w: nothing to say", document.ErrRejected)
	if err := p.Process(t.Context(), d.ID); err != nil {
		t.Fatal(err)
	}
	if got, err := store.Get(t.Context(), d.ID); err != nil || got.Status != document.Failed || got.Error != "summarise: rejected: nothing to say" {
		t.Errorf("rejected: %+v, %v", got, err)
	}
	if err := p.Process(t.Context(), events.NewID()); !errors.Is(err, document.ErrNotFound) {
		t.Errorf("a document that does not exist: %v", err)
	}
}
