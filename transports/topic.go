package transports

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// Match reports whether topic matches pattern: * stands for exactly one word
// and # for zero or more, words being separated by dots, as in the topic
// exchange of AMQP 0-9-1 (section 3.1.3.3 of its specification).
func Match(pattern, topic string) bool {
	if pattern == topic || pattern == "#" {
		return true
	}
	if !HasWildcard(pattern) {
		return false
	}
	// The empty topic has one word, the empty one, as strings.Split says.
	return matchWords(strings.Split(pattern, "."), strings.Split(topic, "."))
}

// matchWords is the usual wildcard match with one step back: after a mismatch
// the last # takes one word more. That is enough, since whatever an earlier #
// could take more of, the last one can take as well.
func matchWords(pattern, topic []string) bool {
	p, t := 0, 0
	hash, hashTopic := -1, 0 // the last # seen, and the first topic word it has not taken
	for t < len(topic) {
		switch {
		case p < len(pattern) && pattern[p] == "#":
			hash, hashTopic = p, t
			p++
		case p < len(pattern) && (pattern[p] == "*" || pattern[p] == topic[t]):
			p++
			t++
		case hash >= 0:
			hashTopic++
			p, t = hash+1, hashTopic
		default:
			return false
		}
	}
	for p < len(pattern) && pattern[p] == "#" {
		p++
	}
	return p == len(pattern)
}

// HasWildcard reports whether pattern can match more than the topic equal to it.
func HasWildcard(pattern string) bool {
	for word := range strings.SplitSeq(pattern, ".") {
		if word == "*" || word == "#" {
			return true
		}
	}
	return false
}

// ValidatePattern says what is wrong with a topic pattern: it is empty, has a
// control character or invalid UTF-8, or has a wildcard inside a word, which
// would be taken literally.
func ValidatePattern(pattern string) error {
	if err := ValidateTopic(pattern); err != nil {
		return err
	}
	for word := range strings.SplitSeq(pattern, ".") {
		if len(word) > 1 && strings.ContainsAny(word, "*#") {
			return fmt.Errorf("topic pattern %q: the wildcard in %q must be a word of its own, between dots", pattern, word)
		}
	}
	return nil
}

// ValidateTopic says what is wrong with a topic to publish to: it is empty, or
// has a control character or invalid UTF-8.
func ValidateTopic(topic string) error {
	switch {
	case topic == "":
		return errors.New("topic is empty")
	case !utf8.ValidString(topic):
		return fmt.Errorf("topic %q is not valid UTF-8", topic)
	}
	if i := firstControl(topic); i >= 0 {
		return fmt.Errorf("topic %q has a control character at byte %d", topic, i)
	}
	return nil
}
