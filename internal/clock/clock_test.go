package clock

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestSleep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		if err := Sleep(t.Context(), time.Hour); err != nil || time.Since(began) != time.Hour {
			t.Errorf("slept for %v, %v", time.Since(began), err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		began = time.Now()
		if err := Sleep(ctx, time.Hour); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != time.Minute {
			t.Errorf("a context that ends: slept for %v, %v", time.Since(began), err)
		}
		for _, d := range []time.Duration{0, -time.Second} {
			began = time.Now()
			if err := Sleep(t.Context(), d); err != nil || time.Since(began) != 0 {
				t.Errorf("%v: slept for %v, %v", d, time.Since(began), err)
			}
			if err := Sleep(ctx, d); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%v in a context that is over: %v", d, err)
			}
		}
	})
}

func TestSleepOr(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		wake := make(chan int, 1)
		began := time.Now()
		if woken, err := SleepOr(t.Context(), time.Hour, wake); woken || err != nil || time.Since(began) != time.Hour {
			t.Errorf("slept for %v: %t, %v", time.Since(began), woken, err)
		}
		time.AfterFunc(time.Minute, func() { wake <- 1 })
		began = time.Now()
		if woken, err := SleepOr(t.Context(), time.Hour, wake); !woken || err != nil || time.Since(began) != time.Minute {
			t.Errorf("until a wake: slept for %v: %t, %v", time.Since(began), woken, err)
		}
	})
}
