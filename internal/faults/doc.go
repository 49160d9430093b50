// Package faults breaks what the library promises not to lose anything through:
// connections, brokers and the processes of services, each at random moments, and
// counts what is left.
//
// Brokers are private ones, started from the installed programs by
// internal/testserver, and are killed. Services are children of the test, the test
// program itself started again, and are killed too. A ledger has the last word: every
// event whose publishing was acknowledged has to be handled.
//
// Random choices come from a seed that each test logs; FAULTS_SEED=n repeats them.
//
// It is a module of its own, so that the library does not depend on the proxy that cuts
// connections. There is nothing in it but tests.
package faults
