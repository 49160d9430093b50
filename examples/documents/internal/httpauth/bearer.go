package httpauth

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"net/http"
	"strings"
)

// Bearer puts a token on requests: for httpclient.Config.Auth. source is called for each
// try, so it keeps the token while that is valid.
func Bearer(source func(context.Context) (string, error)) func(*http.Request) error {
	return func(req *http.Request) error {
		token, err := source(req.Context())
		if err != nil {
			return err
		}
		req.Header.Set("Authorization", "Bearer "+token)
		return nil
	}
}

// StaticToken is a source of one token.
func StaticToken(token string) func(context.Context) (string, error) {
	return func(context.Context) (string, error) { return token, nil }
}

// TokenOf returns the bearer token of an Authorization header, or "".
func TokenOf(authorization string) string {
	scheme, token, ok := strings.Cut(authorization, " ")
	if !ok || !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	return token
}

// Tokens knows who has which token.
type Tokens struct{ entries []tokenEntry }

type tokenEntry struct {
	name string
	hash [sha256.Size]byte
}

// NewTokens makes Tokens from names by token. An empty token is nobody's.
func NewTokens(names map[string]string) *Tokens {
	t := &Tokens{}
	for token, name := range names {
		if token != "" {
			t.entries = append(t.entries, tokenEntry{name, sha256.Sum256([]byte(token))})
		}
	}
	return t
}

// Name returns whose token it is, and false when nobody's. How long it takes does not tell
// how much of a token is right.
func (t *Tokens) Name(token string) (name string, ok bool) {
	hash := sha256.Sum256([]byte(token))
	for _, e := range t.entries {
		if subtle.ConstantTimeCompare(hash[:], e.hash[:]) == 1 {
			name, ok = e.name, true
		}
	}
	return name, ok
}

// RequireBearer lets requests with a known token through, with its owner in the context:
// [Caller]. Others get 401.
func RequireBearer(t *Tokens, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name, ok := t.Name(TokenOf(r.Header.Get("Authorization")))
		if !ok {
			unauthorized(w, "Bearer")
			return
		}
		next.ServeHTTP(w, r.WithContext(WithCaller(r.Context(), name)))
	})
}

func unauthorized(w http.ResponseWriter, scheme string) {
	w.Header().Set("WWW-Authenticate", scheme)
	http.Error(w, "unauthorized", http.StatusUnauthorized)
}

type callerKey struct{}

// WithCaller returns a context of a request of the named caller.
func WithCaller(ctx context.Context, name string) context.Context {
	return context.WithValue(ctx, callerKey{}, name)
}

// Caller returns the name of who has made the request, "" when nobody was asked for one.
func Caller(ctx context.Context) string {
	name, _ := ctx.Value(callerKey{}).(string)
	return name
}
