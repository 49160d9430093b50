package analysis

import (
	"encoding/json"
	"net/http"
	"strings"

	"github.com/gotidings/tidings/examples/documents/internal/document"
)

// text is the body of all three calls.
type text struct {
	Text string `json:"text"`
}

type extracted struct {
	Text  string `json:"text"`
	Words int    `json:"words"`
}

type classified struct {
	Category string `json:"category"`
}

type summarised struct {
	Summary string `json:"summary"`
}

// Handler returns the analysis service: POST /extract, /classify and /summarise. A document
// without a word is answered 422.
func Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /extract", answer(func(s string) any { return extracted{s, len(strings.Fields(s))} }))
	mux.HandleFunc("POST /classify", answer(func(s string) any { return classified{classify(s)} }))
	mux.HandleFunc("POST /summarise", answer(func(s string) any { return summarised{firstSentence(s)} }))
	return mux
}

func answer(do func(string) any) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var body text
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, document.MaxJSON)).Decode(&body); err != nil {
			http.Error(w, "the body can't be read", http.StatusBadRequest)
			return
		}
		s := strings.Join(strings.Fields(body.Text), " ")
		if s == "" {
			http.Error(w, "there is no text in the document", http.StatusUnprocessableEntity)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(do(s)) // who asked has gone away
	}
}

// words that tell a category.
var words = []struct{ word, category string }{
	{"invoice", "invoice"}, {"contract", "contract"}, {"agreement", "contract"}, {"minutes", "minutes"}, {"dear", "letter"},
}

func classify(s string) string {
	s = strings.ToLower(s)
	for _, w := range words {
		if strings.Contains(s, w.word) {
			return w.category
		}
	}
	return "other"
}

// firstSentence is what passes for a summary here, or its beginning.
func firstSentence(s string) string {
	if i := strings.Index(s, ". "); i >= 0 {
		s = s[:i+1]
	}
	return shorten(s)
}
