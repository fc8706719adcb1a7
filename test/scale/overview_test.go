package scale

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"

	"github.com/chromedp/chromedp"
)

// paints is the number of times that the overview page is loaded: by a Chromium that was used once.
const paints = 9

// overview measures the overview page of the console: the time to its last octet, and the time to
// its first paint in Chromium, the median of several.
func (r *runner) overview(ctx context.Context, name string) (err error) {
	page := "http://" + r.Daemon.HTTP + "/console/"
	if r.costs[name], err = median(func() error { return fetch(ctx, page) }); err != nil {
		return err
	}
	allocator, end := chromedp.NewExecAllocator(ctx, append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath("chromium"), chromedp.NoSandbox, chromedp.Flag("disable-gpu", true))...)
	defer end()
	browser, leave := chromedp.NewContext(allocator)
	defer leave()
	var painted []float64
	for i := range 1 + paints {
		took, err := r.firstPaint(browser, page)
		if err != nil {
			return fmt.Errorf("chromium: %w", err)
		}
		if i > 0 {
			painted = append(painted, took)
		}
	}
	slices.Sort(painted)
	r.costs[name+", painted"] = painted[len(painted)/2]
	return nil
}

func fetch(ctx context.Context, page string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, page, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s, %w", page, resp.Status, err)
	}
	return nil
}

// firstPaint loads a page anew, and returns the time from the begin of its navigation to its first
// contentful paint (W3C "Paint Timing") in milliseconds.
func (r *runner) firstPaint(browser context.Context, page string) (milliseconds float64, err error) {
	err = chromedp.Run(browser, chromedp.Navigate("about:blank"), chromedp.Navigate(page))
	if err != nil {
		return 0, err
	}
	const paint = `(performance.getEntriesByName("first-contentful-paint")[0] || {startTime: 0}).startTime`
	err = r.await(browser, "the first paint", func() (bool, error) {
		err := chromedp.Run(browser, chromedp.Evaluate(paint, &milliseconds))
		return milliseconds > 0, err
	})
	return milliseconds, err
}
