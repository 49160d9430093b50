package httpauth

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// VerifierConfig configures a [Verifier]. Keys is required.
type VerifierConfig struct {
	// Keys are the keys, of 32 bytes or more, by their ids; an id is also the name of the
	// caller. During a change of keys both are there.
	Keys map[string][]byte

	// Window is how far the time of a request may be off, either way. 0 means 5 min.
	Window time.Duration

	// MaxBody bounds the body of a request, in bytes. 0 means 1 MiB.
	MaxBody int64

	// MaxNonces bounds how many requests can come in two Windows. One more is refused with
	// 503, since it could be a replay. 0 means a million (about 100 MB).
	MaxNonces int

	// Logger says why requests were turned away. nil means to discard.
	Logger *slog.Logger
}

// Verifier checks the signatures of requests. It remembers nonces in memory: replicas of a
// service don't know each other's, so that a request can be replayed once to each of them.
type Verifier struct {
	cfg VerifierConfig

	mu     sync.Mutex           // guards what follows
	nonces map[string]time.Time // until when each is remembered
	sweep  time.Time            // when to look for those that can be forgotten
}

// NewVerifier makes a verifier.
func NewVerifier(cfg VerifierConfig) (*Verifier, error) {
	if len(cfg.Keys) == 0 {
		return nil, errors.New("httpauth: VerifierConfig.Keys is empty")
	}
	for id, key := range cfg.Keys {
		if !plain(id) {
			return nil, errKeyID
		}
		if len(key) < sha256.Size {
			return nil, fmt.Errorf("httpauth: key %q has %d bytes; it takes at least %d", id, len(key), sha256.Size)
		}
	}
	if cfg.Window == 0 {
		cfg.Window = 5 * time.Minute
	}
	if cfg.MaxBody == 0 {
		cfg.MaxBody = 1 << 20
	}
	if cfg.MaxNonces == 0 {
		cfg.MaxNonces = 1_000_000
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Verifier{cfg: cfg, nonces: make(map[string]time.Time)}, nil
}

var (
	errTooLong = errors.New("the body is too long")
	errFull    = errors.New("too many requests to remember")
)

// Require lets requests through that are signed rightly, with the id of their key as
// [Caller]. Others get 401; 413 when they are too long and 503 when there are too many.
func (v *Verifier) Require(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		caller, err := v.verify(r)
		switch {
		case err == nil:
			next.ServeHTTP(w, r.WithContext(WithCaller(r.Context(), caller)))
			return
		case errors.Is(err, errTooLong):
			http.Error(w, "too long", http.StatusRequestEntityTooLarge)
		case errors.Is(err, errFull):
			http.Error(w, "too many requests", http.StatusServiceUnavailable)
		default:
			unauthorized(w, scheme)
		}
		v.cfg.Logger.WarnContext(r.Context(), "request turned away", slog.String("method", r.Method), slog.String("path", r.URL.Path), slog.Any("error", err))
	})
}

// verify returns who has signed the request, and leaves its body to be read again.
func (v *Verifier) verify(r *http.Request) (caller string, err error) {
	s, err := parse(r.Header.Get("Authorization"))
	if err != nil {
		return "", err
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, v.cfg.MaxBody+1))
	if err != nil {
		return "", err
	}
	if int64(len(body)) > v.cfg.MaxBody {
		return "", errTooLong
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	sum := sha256.New()
	sum.Write(body)
	key, known := v.cfg.Keys[s.key] // nil for one that is not, which takes as long
	if right := hmac.Equal(s.sum(key, r, r.Host, sum), s.mac); !right || !known {
		return "", errors.New("wrong signature or unknown key")
	}
	// Only now, so that strangers can't fill the memory.
	if err := v.first(s); err != nil {
		return "", err
	}
	return s.key, nil
}

// first returns nil when the request is of now, and its nonce comes for the first time.
func (v *Verifier) first(s signature) error {
	seconds, err := strconv.ParseInt(s.time, 10, 64)
	if err != nil {
		return errors.New("malformed time")
	}
	now := time.Now()
	if off := now.Sub(time.Unix(seconds, 0)).Abs(); off > v.cfg.Window {
		return fmt.Errorf("its time is off by %v", off)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if now.After(v.sweep) {
		for nonce, until := range v.nonces {
			if now.After(until) {
				delete(v.nonces, nonce)
			}
		}
		v.sweep = now.Add(v.cfg.Window / 10)
	}
	id := s.key + " " + s.nonce // a nonce of one key is another one of the next
	if _, seen := v.nonces[id]; seen {
		return errors.New("replayed")
	}
	if len(v.nonces) >= v.cfg.MaxNonces {
		return errFull
	}
	v.nonces[id] = now.Add(2 * v.cfg.Window) // from Window in the future to Window in the past
	return nil
}
