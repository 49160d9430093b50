// Package guide holds the code that the pages of docs/ show. It is all in tests, so that what
// a page shows is run and not only compiled; internal/docs compares the pages with it.
package guide
