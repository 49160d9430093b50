package rabbitmq

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/gotidings/tidings/transports"
)

// ManagementConfig configures [NewManagement]. URL and BrokerURL are required.
type ManagementConfig struct {
	// URL is that of the management plugin, "http://user:password@host:15672". Without a
	// user, those of BrokerURL are used. The user needs the tag "management", and at least
	// the right to read in the vhost.
	URL string

	// BrokerURL is the URL that transports.Open takes; its vhost and exchange are what is
	// looked at.
	BrokerURL string

	// Client sends the requests. nil means http.DefaultClient.
	Client *http.Client
}

// Management asks RabbitMQ's management plugin what AMQP can't tell: which subscriptions
// exist, with what arguments, and how many messages are in flight.
// https://www.rabbitmq.com/docs/management#http-api
type Management struct {
	base           string
	user, password string
	vhost          string
	names          names
	client         *http.Client
}

var (
	_ transports.SubscriptionLister = (*Management)(nil)
	_ transports.DepthReporter      = (*Management)(nil)
)

// NewManagement makes a client of the management plugin. It sends nothing yet. Errors wrap
// [transports.ErrInvalidURL], and quote no URL.
func NewManagement(cfg ManagementConfig) (*Management, error) {
	fault := func(problem string) error {
		return fmt.Errorf("rabbitmq: management: %w: %s", transports.ErrInvalidURL, problem)
	}
	u, err := url.Parse(cfg.URL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, fault("it looks like http://user:password@host:15672")
	}
	broker, err := url.Parse(cfg.BrokerURL)
	if err != nil || broker.Scheme != "amqp" && broker.Scheme != "amqps" {
		return nil, fault("the broker's URL is not one of amqp or amqps")
	}
	settings, err := parseURL(broker)
	if err != nil {
		return nil, fmt.Errorf("rabbitmq: management: %w: %w", transports.ErrInvalidURL, err)
	}
	l := loginOf(broker)
	m := &Management{
		base: u.Scheme + "://" + u.Host + strings.TrimSuffix(u.EscapedPath(), "/"),
		user: l.user, password: l.password, vhost: l.vhost,
		names: namesOf(settings.withDefaults().Exchange), client: cmp.Or(cfg.Client, http.DefaultClient),
	}
	if u.User != nil {
		m.user = u.User.Username()
		m.password, _ = u.User.Password()
	}
	return m, nil
}

// managedQueue is what of GET /api/queues/vhost is used.
type managedQueue struct {
	Name      string         `json:"name"`
	Exclusive bool           `json:"exclusive"`
	Arguments map[string]any `json:"arguments"`
	Ready     int            `json:"messages_ready"`
	Unacked   int            `json:"messages_unacknowledged"`
}

// managedBinding is what of GET /api/bindings/vhost is used.
type managedBinding struct {
	Source      string `json:"source"` // an exchange
	Destination string `json:"destination"`
	Kind        string `json:"destination_type"`
	Key         string `json:"routing_key"`
}

// Subscriptions lists the subscriptions of the exchange: the queues with its names that have
// a poison queue, except those that are bound to other exchanges only. A poison queue whose
// subscription is gone is listed as a subscription without topics.
func (m *Management) Subscriptions(ctx context.Context) ([]transports.SubscriptionInfo, error) {
	var queues []managedQueue
	if err := m.get(ctx, "/api/queues/"+url.PathEscape(m.vhost), &queues); err != nil {
		return nil, err
	}
	var bindings []managedBinding
	if err := m.get(ctx, "/api/bindings/"+url.PathEscape(m.vhost), &bindings); err != nil {
		return nil, err
	}
	byName := make(map[string]managedQueue, len(queues))
	for _, q := range queues {
		byName[q.Name] = q
	}
	topics := make(map[string][]string)
	elsewhere := make(map[string]bool) // bound to an exchange that is not ours
	for _, b := range bindings {
		switch {
		case b.Kind != "queue" || b.Source == "" || b.Source == m.names.retry:
		case b.Source == m.names.exchange:
			topics[b.Destination] = append(topics[b.Destination], b.Key)
		default:
			elsewhere[b.Destination] = true
		}
	}
	list := []transports.SubscriptionInfo{}
	for _, q := range queues {
		queue, poison := strings.CutSuffix(q.Name, poisonSuffix)
		name, ours := m.names.subscription(queue)
		if !poison || !ours || elsewhere[queue] && topics[queue] == nil {
			continue
		}
		own := byName[queue] // without a name when it is gone
		info := transports.SubscriptionInfo{Name: name, Topics: append([]string{}, topics[queue]...), Ephemeral: q.Exclusive, Arguments: own.Arguments}
		slices.Sort(info.Topics)
		list = append(list, info)
	}
	slices.SortFunc(list, func(a, b transports.SubscriptionInfo) int { return strings.Compare(a.Name, b.Name) })
	return list, nil
}

// Depth counts what the plugin has last heard of the queues, which takes it some seconds.
// What is delayed is [transports.UnknownDepth].
func (m *Management) Depth(ctx context.Context, subscription string) (transports.Depth, error) {
	var q, poison managedQueue
	err := m.get(ctx, m.queuePath(m.names.queue(subscription)), &q)
	if err == nil {
		err = m.get(ctx, m.queuePath(m.names.poison(subscription)), &poison)
	}
	if errors.Is(err, errNotFound) {
		err = fmt.Errorf("%w: there is no queue %q", transports.ErrNoSubscription, subscription)
	}
	if err != nil {
		return transports.Depth{}, err
	}
	return transports.Depth{
		Ready: q.Ready, InFlight: q.Unacked, Delayed: transports.UnknownDepth, Poisoned: poison.Ready + poison.Unacked,
	}, nil
}

func (m *Management) queuePath(name string) string {
	return "/api/queues/" + url.PathEscape(m.vhost) + "/" + url.PathEscape(name)
}

// errNotFound is the answer 404.
var errNotFound = errors.New("not found")

// maxAnswer bounds an answer, in bytes: some kilobytes for each queue.
const maxAnswer = 256 << 20

// get reads the answer to a request. No error quotes the URL's login.
func (m *Management) get(ctx context.Context, path string, into any) error {
	fail := func(err error) error { return fmt.Errorf("rabbitmq: management: %w", err) }
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, m.base+path, nil)
	if err != nil {
		return fail(err)
	}
	req.SetBasicAuth(m.user, m.password)
	res, err := m.client.Do(req)
	if err != nil {
		return fail(err)
	}
	defer res.Body.Close() //nolint:errcheck // it was read, or is not wanted
	switch res.StatusCode {
	case http.StatusOK:
	case http.StatusUnauthorized:
		return fail(errors.New("the login is refused; check the user and password, and give the user the tag management"))
	case http.StatusForbidden:
		return fail(fmt.Errorf("the user may not look at the vhost %q; give it rights there", m.vhost))
	case http.StatusNotFound:
		return fail(fmt.Errorf("%s: %w; is that the URL of the management API, and does the vhost %q exist?", path, errNotFound, m.vhost))
	default:
		return fail(fmt.Errorf("%s: %s", path, res.Status))
	}
	if err := json.NewDecoder(io.LimitReader(res.Body, maxAnswer)).Decode(into); err != nil {
		return fail(fmt.Errorf("%s: the answer is not that of the management API: %w", path, err))
	}
	return nil
}
