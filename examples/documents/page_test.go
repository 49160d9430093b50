package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/gotidings/tidings/examples/documents/internal/document"
	"github.com/gotidings/tidings/internal/testserver"
)

// browser is a page in a headless Chromium.
type browser struct {
	t   *testing.T
	ctx context.Context //nolint:containedctx // chromedp keeps its browser there
}

func openBrowser(t *testing.T) *browser {
	t.Helper()
	program := testserver.Chromium(t)
	options := append(slices.Clone(chromedp.DefaultExecAllocatorOptions[:]),
		chromedp.ExecPath(program), chromedp.NoSandbox, chromedp.WindowSize(1200, 800)) // root can't have a sandbox
	ctx, cancel := chromedp.NewExecAllocator(t.Context(), options...)
	ctx, cancelBrowser := chromedp.NewContext(ctx)
	t.Cleanup(func() {
		_ = chromedp.Cancel(ctx) // waits for the browser to end
		cancelBrowser()
		cancel()
	})
	if err := chromedp.Do(ctx); err != nil { // starts it
		t.Fatal(err)
	}
	return &browser{t, ctx}
}

func (b *browser) do(what string, steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, deadline)
	defer cancel()
	if err := chromedp.Do(ctx, steps...); err != nil {
		text, _ := chromedp.Run(b.ctx, chromedp.Evaluate[string](`document.body.innerText`))
		b.t.Fatalf("%s: %v; the page shows\n%s", what, err, text)
	}
}

// sees waits until an expression is true in the page.
func (b *browser) sees(what, expression string) {
	b.t.Helper()
	b.do(what, chromedp.Poll[chromedp.Void](expression))
}

// count waits until so many elements match.
func (b *browser) count(n int, selector string) {
	b.t.Helper()
	b.sees(fmt.Sprintf("%d of %s", n, selector), fmt.Sprintf("document.querySelectorAll(%q).length === %d", selector, n))
}

// screenshot is kept with go test -artifacts.
func (b *browser) screenshot(name string) {
	b.t.Helper()
	image, err := chromedp.Run(b.ctx, chromedp.FullScreenshot(100))
	if err == nil {
		err = os.WriteFile(filepath.Join(b.t.ArtifactDir(), name+".png"), image, 0o600)
	}
	if err != nil {
		b.t.Errorf("screenshot: %v", err)
	}
}

// A user submits documents and sees them move; the page says when it does not know how they
// are, and is right again after that.
func TestPage(t *testing.T) {
	t.Parallel()
	b := openBrowser(t)
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(testserver.FreePort(t)))
	cfg := newConfig(t, append(onFile(t), "-addr", address, "-monitor-interval", "50ms", "-try-timeout", "5m", "-shutdown-timeout", "100ms")...)
	s := start(t, cfg)
	s.services.analysisFaults.Hang(true)

	b.do("open the page", chromedp.Navigate("http://"+address+"/#token="+adasToken))
	b.sees("the connection", `document.getElementById("connection").textContent === "live"`)
	b.sees("no token in the address", `location.hash === ""`)

	folder := t.TempDir()
	var files []string
	for name, content := range map[string]string{"letter.txt": letter, "empty.txt": ""} {
		files = append(files, filepath.Join(folder, name))
		if err := os.WriteFile(files[len(files)-1], []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	b.do("submit files", chromedp.SetUploadFiles(chromedp.CSS("#files"), files), chromedp.Click(chromedp.CSS("#submit button")))
	ada := s.connect(adasToken, "ada")
	ada.submit(t.Context(), "by-rest.txt", "An invoice. It is due.") // the page hears of it
	b.count(3, "#documents tr[data-status=processing]")
	b.sees("the step", `[...document.querySelectorAll("#documents tr")].every(row => row.cells[3].textContent === "extract")`)
	b.count(4, "#dependencies li")
	b.screenshot("processing")

	// What events bring is shown while nothing can be read; and the page says that it can't.
	b.do("let nothing be read", chromedp.Evaluate[chromedp.Void](`window.realFetch = fetch; window.fetch = () => Promise.reject(new Error("cut"))`))
	s.services.paymentFaults.Hang(true)
	s.services.analysisFaults.Hang(false)
	b.sees("the progress", `[...document.querySelectorAll("#documents tr[data-status=processing]")].filter(row => row.cells[3].textContent === "charge" && row.cells[2].firstChild.value === 75).length === 2`)
	b.count(1, "#documents tr[data-status=failed]")
	b.sees("that nothing can be read", `document.getElementById("connection").textContent === "can't read the documents: cut" && "stale" in document.body.dataset`)
	b.do("let all be read", chromedp.Evaluate[chromedp.Void](`window.fetch = window.realFetch`))
	b.sees("that it can be read", `document.getElementById("connection").textContent === "live" && !("stale" in document.body.dataset)`)

	s.end(false)
	b.sees("that the connection is lost", `document.getElementById("connection").textContent !== "live" && document.getElementById("since").textContent !== "" && "stale" in document.body.dataset`)
	b.count(2, "#documents tr[data-status=processing]") // as it was
	b.screenshot("lost")

	s = start(t, cfg)
	b.sees("the connection again", `document.getElementById("connection").textContent === "live" && !("stale" in document.body.dataset)`)
	b.sees("the results", `document.getElementById("counts").textContent === "0 queued, 0 processing, 2 processed, 1 failed"`)
	text, err := chromedp.Run(b.ctx, chromedp.Evaluate[[]string](`[...document.querySelectorAll("#documents tr")].map(row => [...row.cells].map(c => c.textContent).join("|")).sort()`))
	want := []string{
		"by-rest.txt|processed||||invoice, 5 words: An invoice.",
		"empty.txt|failed||||extract: rejected: there is no text in the document",
		"letter.txt|processed||||letter, 5 words: Dear Ada.",
	}
	if err != nil || !slices.Equal(text, want) {
		t.Errorf("rows are %q, %v", text, err)
	}

	s.services.analysisFaults.Down(true)
	b.sees("the service that is down", `[...document.querySelectorAll("#dependencies li[data-status=down]")].some(li => li.textContent.includes("analysis"))`)
	b.screenshot("done")

	b.do("open the page with a wrong token", chromedp.Navigate("about:blank"), chromedp.Navigate("http://"+address+"/#token=somebodys-token"))
	b.sees("why it is not connected", `document.getElementById("connection").textContent === "not connected: the token is missing or wrong"`)
	b.count(0, "#documents tr")
}

// The page shows the newest documents, as many as it can follow, and says so.
func TestPageOfMany(t *testing.T) {
	t.Parallel()
	b := openBrowser(t)
	s := start(t, newConfig(t, append(onFile(t), "-role", "api")...)) // nobody processes them
	b.do("open the page", chromedp.Navigate(s.server.url()+"/#token="+adasToken))
	b.sees("the connection", `document.getElementById("connection").textContent === "live"`)
	const documents, shown = 150, 100
	all := make([]document.Document, documents)
	for i := range all {
		d, err := document.New("", "ada", fmt.Sprintf("%d.txt", i), letter, time.Now())
		if err == nil {
			all[i], err = s.store.Add(t.Context(), d)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	b.sees("the newest one", fmt.Sprintf("document.querySelector(%q)?.id === %q", "#documents tr", all[documents-1].ID))
	b.sees("nothing that is no longer followed", fmt.Sprintf(`[...document.querySelectorAll("#documents tr")].map(row => row.cells[0].textContent).join() ===
		[...Array(%d).keys()].map(i => %d - i + ".txt").join()`, shown, documents-1))
	b.sees("that there are more", `document.getElementById("counts").textContent.startsWith("The newest 100: ")`)

	// Whatever is shown is moved by events alone.
	b.do("let nothing be read", chromedp.Evaluate[chromedp.Void](`window.fetch = () => new Promise(() => {})`))
	for _, d := range all {
		d.Fail("not today")
		if err := s.store.Save(t.Context(), &d); err != nil {
			t.Fatal(err)
		}
	}
	b.count(shown, "#documents tr[data-status=failed]")
}

// The page shows what the steps have found so far, and no more.
func TestPageInTheMiddle(t *testing.T) {
	t.Parallel()
	b := openBrowser(t)
	s := start(t, newConfig(t, append(onFile(t), "-role", "api")...)) // nobody processes them
	b.do("open the page", chromedp.Navigate(s.server.url()+"/#token="+adasToken))
	b.sees("the connection", `document.getElementById("connection").textContent === "live"`)
	for i, c := range []struct {
		step    document.Step
		results document.Results
		want    string
	}{
		{document.Extract, document.Results{}, ""},
		{document.Classify, document.Results{Words: 5}, "5 words"},
		{document.Summarise, document.Results{Words: 5, Category: "letter"}, "letter, 5 words"},
		{document.Charge, document.Results{Words: 5, Category: "letter", Summary: "Dear Ada."}, "letter, 5 words: Dear Ada."},
		{document.Charge, document.Results{Category: "unknown", Degraded: []document.Step{document.Classify}}, "unknown (without the service: classify)"},
	} {
		d, err := document.New("", "ada", fmt.Sprintf("%d.txt", i), letter, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		d.Status, d.Step, d.Results = document.Processing, c.step, c.results
		if d, err = s.store.Add(t.Context(), d); err != nil {
			t.Fatal(err)
		}
		row := fmt.Sprintf("document.getElementById(%q)", d.ID)
		b.sees("the step "+string(c.step), fmt.Sprintf("%s?.cells[3].textContent === %q", row, c.step))
		text, err := chromedp.Run(b.ctx, chromedp.Evaluate[string](row+".cells[5].textContent"))
		if err != nil || text != c.want {
			t.Errorf("at %s the results are %q, %v; want %q", c.step, text, err, c.want)
		}
	}
}
