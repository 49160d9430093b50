package httpauth

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

const scheme = "HMAC-SHA256"

var (
	errMalformed = errors.New("malformed header")
	errKeyID     = errors.New("httpauth: the id of a key has letters, digits and -._: only, 64 at most")
)

// HMAC signs requests with a key, which the receiver knows by its id, a word: for
// httpclient.Config.Auth. Each try has a nonce of its own. The body must be one that
// http.NewRequest knows, so that it can be read twice.
func HMAC(keyID string, key []byte) func(*http.Request) error {
	return func(req *http.Request) error {
		if !plain(keyID) {
			return errKeyID
		}
		sum := sha256.New()
		if err := readBody(sum, req); err != nil {
			return err
		}
		s := signature{key: keyID, time: strconv.FormatInt(time.Now().Unix(), 10), nonce: rand.Text()}
		s.mac = s.sum(key, req, req.URL.Host, sum)
		req.Header.Set("Authorization", s.header())
		return nil
	}
}

func readBody(w io.Writer, req *http.Request) error {
	if req.Body == nil || req.Body == http.NoBody {
		return nil
	}
	if req.GetBody == nil {
		return errors.New("the body can't be signed: there is no copy of it")
	}
	body, err := req.GetBody()
	if err != nil {
		return err
	}
	_, err = io.Copy(w, body)
	return errors.Join(err, body.Close())
}

// signature is what the header says.
type signature struct {
	key, time, nonce string
	mac              []byte
}

func (s signature) header() string {
	return fmt.Sprintf("%s key=%q, time=%q, nonce=%q, signature=%q", scheme, s.key, s.time, s.nonce, hex.EncodeToString(s.mac))
}

// sum returns what the signature of a request has to be.
func (s signature) sum(key []byte, req *http.Request, host string, body hash.Hash) []byte {
	mac := hmac.New(sha256.New, key)
	_, _ = io.WriteString(mac, strings.Join([]string{ // no field has a newline in it
		scheme, req.Method, host, req.URL.RequestURI(), req.Header.Get("Idempotency-Key"),
		s.time, s.nonce, hex.EncodeToString(body.Sum(nil)),
	}, "\n"))
	return mac.Sum(nil)
}

// parse reads the header. The order of its fields is free, and each comes once.
func parse(header string) (signature, error) {
	var s signature
	name, fields, _ := strings.Cut(header, " ")
	if !strings.EqualFold(name, scheme) {
		return s, errors.New("no " + scheme)
	}
	values := make(map[string]string)
	for field := range strings.SplitSeq(fields, ",") {
		key, value, _ := strings.Cut(strings.TrimSpace(field), "=")
		if _, twice := values[key]; twice || len(value) < 2 || value[0] != '"' || value[len(value)-1] != '"' {
			return s, errMalformed
		}
		values[key] = value[1 : len(value)-1]
	}
	mac, err := hex.DecodeString(values["signature"])
	if err != nil || len(values) != 4 {
		return s, errMalformed
	}
	s = signature{key: values["key"], time: values["time"], nonce: values["nonce"], mac: mac}
	if !plain(s.key) || !plain(s.time) || !plain(s.nonce) {
		return s, errMalformed
	}
	return s, nil
}

// plain says whether text is a word that needs no escape in the header.
func plain(text string) bool {
	return text != "" && len(text) <= 64 && strings.IndexFunc(text, func(r rune) bool {
		letter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z'
		return !letter && (r < '0' || r > '9') && !strings.ContainsRune("-._:", r)
	}) < 0
}
