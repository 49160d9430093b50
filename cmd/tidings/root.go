package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// app is one run of the program: what the flags of all commands say, and where it reads
// and writes.
type app struct {
	transport  string
	management string
	timeout    time.Duration
	output     string

	in       io.Reader
	out, err io.Writer
}

// run is the program. It returns the exit status.
func run(ctx context.Context, args []string, getenv func(string) string, stdin io.Reader, stdout, stderr io.Writer) int {
	a := &app{in: stdin, out: stdout, err: stderr}
	root := a.root()
	root.SetArgs(args)
	root.PersistentPreRunE = func(*cobra.Command, []string) error {
		// Not defaults of the flags, which the help would print.
		a.transport = cmp.Or(a.transport, getenv("TIDINGS_TRANSPORT"))
		a.management = cmp.Or(a.management, getenv("TIDINGS_MANAGEMENT_URL"))
		return a.check()
	}
	err := root.ExecuteContext(ctx)
	if err != nil {
		fmt.Fprintf(stderr, "tidings: %s\n", oneLine(a.explain(err), a.transport, a.management))
	}
	return exitCode(err)
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:           "tidings",
		Short:         "Operate the events of services on Tidings",
		Long:          rootHelp,
		Example:       rootExample,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.ArbitraryArgs, // an unknown command is reported by RunE, as the usage error that it is
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return unknownCommand(cmd, args[0])
			}
			return cmd.Help()
		},
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usagef("%w; %s --help shows the flags", err, cmd.CommandPath())
	})
	flags := root.PersistentFlags()
	flags.StringVar(&a.transport, "transport", "", "`URL` of the broker or database; TIDINGS_TRANSPORT when not given")
	flags.StringVar(&a.management, "management-url", "", "`URL` of RabbitMQ's management API, such as http://user:password@host:15672; TIDINGS_MANAGEMENT_URL when not given")
	flags.DurationVar(&a.timeout, "timeout", 10*time.Second, "how long the broker may take for an answer")
	flags.StringVarP(&a.output, "output", "o", "table", "table, or json for one JSON document")
	root.AddCommand(a.commands()...)
	root.SetIn(a.in)
	root.SetOut(a.out) // before the command completion is made, which keeps it
	root.SetErr(a.err)
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	for _, c := range root.Commands() {
		switch c.Name() {
		case "help":
			c.Args, c.RunE, c.Run = cobra.ArbitraryArgs, helpOn, nil
		case "completion":
			c.Args, c.RunE = cobra.ArbitraryArgs, runGroup
		}
	}
	wrapArgs(root)
	return root
}

func (a *app) check() error {
	if a.output != "table" && a.output != "json" {
		return usagef("--output is %q; it takes table or json", a.output)
	}
	if a.timeout <= 0 {
		return usagef("--timeout is %v; it takes a duration such as 10s", a.timeout)
	}
	return nil
}

// group is a command that only has others below it.
func group(use, short string, commands ...*cobra.Command) *cobra.Command {
	g := &cobra.Command{
		Use: use, Short: short, Args: cobra.ArbitraryArgs, RunE: runGroup,
	}
	g.AddCommand(commands...)
	return g
}

func runGroup(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return unknownCommand(cmd, args[0])
	}
	return usagef("%s needs one of the commands %s", cmd.CommandPath(), names(cmd))
}

// helpOn is the command help, which refuses what is no command.
func helpOn(cmd *cobra.Command, args []string) error {
	on, rest, err := cmd.Root().Find(args)
	if err != nil || len(rest) > 0 {
		return unknownCommand(on, rest[0])
	}
	return on.Help()
}

func unknownCommand(cmd *cobra.Command, name string) error {
	return usagef("%s has no command %.40q; it has %s", cmd.CommandPath(), name, names(cmd))
}

func names(cmd *cobra.Command) string {
	var all []string
	for _, c := range cmd.Commands() {
		if c.IsAvailableCommand() {
			all = append(all, c.Name())
		}
	}
	return strings.Join(all, ", ")
}

// wrapArgs makes usage errors of what commands say about the number of their arguments.
func wrapArgs(cmd *cobra.Command) {
	for _, c := range cmd.Commands() {
		wrapArgs(c)
		check := c.Args
		if check == nil {
			check = cobra.NoArgs
		}
		c.Args = func(cmd *cobra.Command, args []string) error {
			if err := check(cmd, args); err != nil {
				return usagef("%w; it is %s", err, cmd.UseLine())
			}
			return nil
		}
	}
}
