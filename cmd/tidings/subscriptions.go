package main

import (
	"context"
	"fmt"
	"net/http"

	"github.com/gotidings/tidings/transports"
	"github.com/gotidings/tidings/transports/rabbitmq"
)

// manager returns the client of RabbitMQ's management API, nil when there is none.
func (a *app) manager() (*rabbitmq.Management, error) {
	if a.management == "" || !a.isAMQP() {
		return nil, nil //nolint:nilnil // none is no fault
	}
	m, err := rabbitmq.NewManagement(rabbitmq.ManagementConfig{
		URL: a.management, BrokerURL: a.transport,
		// No connection is left behind: one command asks a few times.
		Client: &http.Client{Transport: &http.Transport{DisableKeepAlives: true, Proxy: http.ProxyFromEnvironment}},
	})
	if err != nil {
		return nil, &usageError{fmt.Errorf("--management-url: %w", err)}
	}
	return m, nil
}

// errCannotList is a usage error: what to do about it is to use other flags.
var errCannotList = usagef("AMQP can't list subscriptions: name them by --subscription, or give --management-url")

// list returns the subscriptions of the broker.
func (a *app) list(ctx context.Context, t transports.Transport) ([]transports.SubscriptionInfo, error) {
	ctx, cancel := a.bounded(ctx)
	defer cancel()
	m, err := a.manager()
	if err != nil {
		return nil, err
	}
	if m != nil {
		return m.Subscriptions(ctx)
	}
	lister, ok := t.(transports.SubscriptionLister)
	if !ok {
		return nil, errCannotList
	}
	return lister.Subscriptions(ctx)
}

// depths returns what can count the messages of a subscription.
func (a *app) depths(t transports.Transport) (transports.DepthReporter, bool) {
	reporter, ok := t.(transports.DepthReporter)
	return reporter, ok
}
