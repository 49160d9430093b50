package main

import (
	"io"
	"strings"
	"testing"
	"time"
)

func TestUsageErrors(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		args, env []string // env: name, value, …
		want      []string // in the message
	}{
		"unknown flag":    {args: []string{"-frobnicate"}, want: []string{"frobnicate"}},
		"an argument":     {args: []string{"orders"}, want: []string{`unexpected argument "orders"`}},
		"role":            {args: []string{"-role", "api,boss"}, want: []string{`-role: "boss" is no role`}},
		"empty role":      {args: []string{"-role", ""}, want: []string{"is no role"}},
		"name":            {args: []string{"-name", "My Shop"}, want: []string{"-name: it takes"}},
		"address":         {args: []string{"-addr", "here"}, want: []string{"-addr: it takes a host and a port"}},
		"database":        {args: []string{"-db", "oracle://x"}, want: []string{`-db: its scheme is "oracle"`}},
		"database, file":  {args: []string{"-db", "sqlite:"}, want: []string{"-db: it has no file"}},
		"database, more":  {args: []string{"-db", "mysql://root@localhost/test?timeout=soon"}, want: []string{"-db: it has parameters"}},
		"transport":       {args: []string{"-transport", "carrier-pigeon://x"}, want: []string{`-transport: its scheme is "carrier-pigeon"`}},
		"load":            {args: []string{"-load", "-1"}, want: []string{"-load: it takes a whole number"}},
		"mail":            {args: []string{"-mail-failures", "NaN"}, want: []string{"-mail-failures: it takes a number from 0 to 1"}},
		"vip":             {args: []string{"-vip-after", "0"}, want: []string{"-vip-after: it takes a whole number"}},
		"times":           {args: []string{"-outbox-age", "0", "-shutdown-timeout", "soon"}, want: []string{"-outbox-age: it takes a time", "-shutdown-timeout: it takes a time"}},
		"environment":     {env: []string{"SHOP_VIP_AFTER", "few"}, want: []string{"SHOP_VIP_AFTER: it takes a whole number"}},
		"memory":          {args: []string{"-role", "api", "-transport", "memory://"}, want: []string{"memory:// is in one process"}},
		"nowhere":         {args: []string{"-role", "relay"}, want: []string{"-role relay needs a -transport"}},
		"load without it": {args: []string{"-role", "worker", "-load", "1"}, want: []string{"-load needs the role api"}},
		"all at once": {
			args: []string{"-db", "oracle://x", "-role", "boss"}, env: []string{"SHOP_LOAD", "many"},
			want: []string{"-db: ", "-role: ", "SHOP_LOAD: "},
		},
		"a fault that shows later": {args: []string{"-load", "1", "-transport", "memory://?queue_size=x"}, want: []string{"queue_size"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			getenv := func(name string) string {
				for i := 0; i < len(c.env); i += 2 {
					if c.env[i] == name {
						return c.env[i+1]
					}
				}
				return ""
			}
			var stderr output
			if code := run(t.Context(), c.args, getenv, io.Discard, &stderr); code != exitUsage {
				t.Errorf("exit status %d, want %d", code, exitUsage)
			}
			for _, text := range c.want {
				if !strings.Contains(stderr.String(), text) {
					t.Errorf("%q is not in %q", text, &stderr)
				}
			}
		})
	}
}

func TestURLsThatAreMalformedAreNotShown(t *testing.T) {
	t.Parallel()
	var stderr output
	args := []string{"-db", "postgres://shop:hunter2@%zz/", "-transport", "amqp://shop:hunter2@%zz/"}
	if code := run(t.Context(), args, noEnv, io.Discard, &stderr); code != exitUsage || strings.Contains(stderr.String(), "hunter2") {
		t.Errorf("exit status %d, %s", code, &stderr)
	}
}

func TestFlagsWinOverTheEnvironmentAndThatOverDefaults(t *testing.T) {
	t.Parallel()
	getenv := func(name string) string {
		return map[string]string{"SHOP_VIP_AFTER": "7", "SHOP_NAME": "env", "SHOP_ROLE": "api,worker"}[name]
	}
	c, err := parseConfig([]string{"-name", "flag"}, getenv, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if c.vipAfter != 7 || c.name != "flag" || c.outboxAge != time.Minute || c.db != "sqlite:shop.db" || c.has(roleRelay) || !c.has(roleWorker) {
		t.Errorf("%+v", c)
	}
	if c, err := parseConfig(nil, noEnv, io.Discard); err != nil || c.name != "shop" {
		t.Errorf("%+v, %v", c, err)
	}
}

func TestHelp(t *testing.T) {
	t.Parallel()
	var stdout, stderr output
	if code := run(t.Context(), []string{"-help"}, noEnv, &stdout, &stderr); code != 0 || stderr.String() != "" {
		t.Errorf("exit status %d, errors %q", code, &stderr)
	}
	for _, s := range settings {
		if !strings.Contains(stdout.String(), "-"+s.name+" ") {
			t.Errorf("-%s is not in %s", s.name, &stdout)
		}
	}
}
