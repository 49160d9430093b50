package main

import "github.com/spf13/cobra"

func (a *app) commands() []*cobra.Command {
	return []*cobra.Command{
		a.publishCommand(), a.tailCommand(), a.poisonCommand(), a.outboxCommand(), a.subscriptionsCommand(), a.topologyCommand(),
		a.eventsCommand(), a.statsCommand(), a.healthCommand(), a.migrateCommand(),
	}
}
