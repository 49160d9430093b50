// Package auth knows users by their bearer tokens (RFC 6750): those of HTTP, of gRPC and of
// the live page are the same.
package auth

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"strings"
)

// ErrUnauthenticated: the token is missing or nobody's.
var ErrUnauthenticated = errors.New("the token is missing or wrong")

// Tokens are the users by the digests of their tokens: who looks a digest up learns nothing
// of a token by how long it takes, and no token is in a dump of the memory.
type Tokens struct{ users map[[sha256.Size]byte]string }

// Parse reads pairs of a token and its user: "s3cret=ada,an0ther=bob". Its errors quote no
// token.
func Parse(pairs string) (Tokens, error) {
	t := Tokens{users: make(map[[sha256.Size]byte]string)}
	var faults []error
	for i, pair := range strings.Split(pairs, ",") {
		token, user, _ := strings.Cut(pair, "=")
		if len(token) < 8 || user == "" || strings.ContainsAny(pair, " \t\n") {
			faults = append(faults, fmt.Errorf("pair %d is not a token of at least 8 characters, = and a user", i+1))
			continue
		}
		t.users[sha256.Sum256([]byte(token))] = user
	}
	return t, errors.Join(faults...)
}

// User returns whose token it is, or [ErrUnauthenticated].
func (t Tokens) User(token string) (string, error) {
	user, ok := t.users[sha256.Sum256([]byte(token))]
	if !ok {
		return "", ErrUnauthenticated
	}
	return user, nil
}

// Bearer returns the token of an Authorization header, or "".
func Bearer(header string) string {
	if scheme, token, _ := strings.Cut(header, " "); strings.EqualFold(scheme, "Bearer") {
		return strings.TrimSpace(token)
	}
	return ""
}

// Require answers 401 to requests without a good token. In the others' contexts is their
// user, see [UserFrom].
func (t Tokens) Require(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, err := t.User(Bearer(r.Header.Get("Authorization")))
		if err != nil {
			w.Header().Set("WWW-Authenticate", "Bearer")
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusUnauthorized)
			_, _ = w.Write([]byte(`{"errors":["` + ErrUnauthenticated.Error() + `"]}` + "\n")) // who asked has gone away
			return
		}
		next.ServeHTTP(w, r.WithContext(WithUser(r.Context(), user)))
	})
}

type userKey struct{}

// WithUser returns a context that says for whom something is done.
func WithUser(ctx context.Context, user string) context.Context {
	return context.WithValue(ctx, userKey{}, user)
}

// UserFrom returns the user of a context; "" is nobody.
func UserFrom(ctx context.Context) string {
	user, _ := ctx.Value(userKey{}).(string)
	return user
}
