package document

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/gotidings/tidings/events"
)

// Limits of what is submitted.
const (
	MaxName    = 200     // characters
	MaxContent = 1 << 20 // bytes

	// MaxJSON is the most that the content takes as JSON with what is around it, in bytes: a
	// byte may be escaped as six. Whoever hands documents on as JSON takes as much.
	MaxJSON = 6*MaxContent + 64<<10
)

var (
	// ErrNotFound says that there is no such document, or it is somebody else's. The two are not
	// told apart, so that nobody can find out which ids exist.
	ErrNotFound = errors.New("there is no such document")

	// ErrConflict says that another worker has changed the document meanwhile, or somebody else has
	// taken its id.
	ErrConflict = errors.New("the document is not what it was, or somebody else's")

	// ErrTooLarge wraps what is said of content that has more than [MaxContent] bytes.
	ErrTooLarge = errors.New("too large")

	// ErrRejected wraps what a step says of a document that it will never take, however
	// often it is asked. The document fails.
	ErrRejected = errors.New("rejected")
)

// Status is how far a document is.
type Status string

// The statuses of a document, in their order; the last two are final.
const (
	Queued     Status = "queued"
	Processing Status = "processing"
	Processed  Status = "processed"
	Failed     Status = "failed"
)

// Final reports whether nothing happens to the document any more.
func (s Status) Final() bool { return s == Processed || s == Failed }

// Valid reports whether s is one of the statuses.
func (s Status) Valid() bool {
	return slices.Contains([]Status{Queued, Processing, Processed, Failed}, s)
}

// Step is a part of the processing.
type Step string

// The steps of the processing.
const (
	Extract   Step = "extract"   // the text
	Classify  Step = "classify"  // what it is about
	Summarise Step = "summarise" // in one sentence
	Charge    Step = "charge"    // its owner
)

// Steps are the steps in their order.
var Steps = []Step{Extract, Classify, Summarise, Charge}

// Document is a document with all that is known of it.
type Document struct {
	ID        string        `json:"id"`
	Owner     string        `json:"-"`
	Name      string        `json:"name"`
	Content   string        `json:"-"`
	Status    Status        `json:"status"`
	Step      Step          `json:"step,omitempty"` // current one, while it is processed
	Progress  int           `json:"progress"`       // percent
	Remaining time.Duration `json:"-"`              // estimated; 0 when it is final
	Results   Results       `json:"results,omitzero"`
	Error     string        `json:"error,omitempty"` // why it failed
	Version   int64         `json:"version"`         // grows with each change
	CreatedAt time.Time     `json:"createdAt"`
	UpdatedAt time.Time     `json:"updatedAt"`
}

// Results are what the steps have found. Each step sets its own.
type Results struct {
	Text      string `json:"-"` // what was extracted, kept until the end
	Words     int    `json:"words,omitempty"`
	Category  string `json:"category,omitempty"`
	Summary   string `json:"summary,omitempty"`
	PaymentID string `json:"paymentId,omitempty"`

	// Degraded are the steps whose service was not to be had, and whose results are those
	// of a fallback.
	Degraded []Step `json:"degraded,omitempty"`
}

// New returns a document that waits to be processed, or every fault of what was submitted.
// id is a UUID that the caller has made, so that a request may be sent again; empty makes one.
func New(id, owner, name, content string, now time.Time) (Document, error) {
	var faults []error
	if id == "" {
		id = events.NewID()
	}
	if !ValidID(id) {
		faults = append(faults, errors.New("id takes a UUID in lower case, or nothing"))
	}
	if n := utf8.RuneCountInString(name); n == 0 || n > MaxName || !utf8.ValidString(name) || hasControl(name) {
		faults = append(faults, fmt.Errorf("name takes 1 to %d characters", MaxName))
	}
	if len(content) > MaxContent {
		faults = append(faults, fmt.Errorf("content is %w: it takes up to %d bytes", ErrTooLarge, MaxContent))
	}
	if !utf8.ValidString(content) {
		faults = append(faults, errors.New("content takes UTF-8"))
	}
	if strings.ContainsRune(content, 0) {
		faults = append(faults, errors.New("content takes no NUL character, which the database can't keep"))
	}
	now = now.Truncate(time.Millisecond) // as the database has it
	return Document{
		ID: id, Owner: owner, Name: name, Content: content, Status: Queued, Version: 1, CreatedAt: now, UpdatedAt: now,
	}, errors.Join(faults...)
}

// ValidID reports whether id can be that of a document: a UUID in lower case.
func ValidID(id string) bool {
	parsed, err := uuid.Parse(id)
	return err == nil && parsed.String() == id
}

func hasControl(s string) bool { return slices.ContainsFunc([]rune(s), unicode.IsControl) }

// Begin makes step the current one.
func (d *Document) Begin(step Step, remaining time.Duration) {
	d.Status, d.Step, d.Remaining = Processing, step, remaining
	d.Progress = 100 * slices.Index(Steps, step) / len(Steps)
}

// Finish makes the document processed.
func (d *Document) Finish() {
	d.Status, d.Step, d.Progress, d.Remaining = Processed, "", 100, 0
}

// Fail makes the document failed. Its progress stays where it was.
func (d *Document) Fail(reason string) {
	d.Status, d.Step, d.Remaining, d.Error = Failed, "", 0, reason
}
