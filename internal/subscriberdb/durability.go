package subscriberdb

import (
	"context"
	"fmt"
	"strings"
	"sync"

	"github.com/redis/go-redis/v9"

	"github.com/sessiond/sessiond/internal/subscriberdb/redisconn"
)

// wantedPolicy is the maxmemory-policy with which Redis never evicts a record to free
// memory.
const wantedPolicy = "noeviction"

// Doubts returns the settings of Redis that endanger records, each as a line for the
// operator. It skips settings that Redis does not let us read.
func (p *prober) Doubts(ctx context.Context) ([]string, error) {
	var mu sync.Mutex
	var doubts []string
	err := p.client.EachMaster(ctx, func(ctx context.Context, server redis.UniversalClient) error {
		memory, err := server.Info(ctx, "memory").Result()
		if err != nil {
			return err
		}
		persistence, err := server.Info(ctx, "persistence").Result()
		if err != nil {
			return err
		}
		found := evictionDoubt(memory)
		if infoField(persistence, "aof_enabled") == "0" {
			save, err := server.ConfigGet(ctx, "save").Result() // often not allowed
			found = append(found, persistenceDoubt(err == nil && save["save"] == ""))
		}
		mu.Lock()
		defer mu.Unlock()
		for _, doubt := range found {
			doubts = append(doubts, redisconn.Address(server)+": "+doubt)
		}
		return nil
	})
	return doubts, err
}

func evictionDoubt(memory string) []string {
	policy := infoField(memory, "maxmemory_policy")
	if policy == "" || policy == wantedPolicy {
		return nil
	}
	return []string{fmt.Sprintf(
		"maxmemory-policy is %s: a Redis that is full throws records away, which ends subscribers that are online; set %s",
		policy, wantedPolicy)}
}

func persistenceDoubt(nothing bool) string {
	if nothing {
		return "nothing is kept on disk: with a restart of Redis all records and holds are lost; set appendonly yes"
	}
	return "only snapshots are kept on disk: with a crash of Redis the last minutes are lost, and what was answered to BNGs in them; set appendonly yes"
}

// infoField returns a field of INFO, "" where there is none.
func infoField(info, name string) string {
	for line := range strings.Lines(info) {
		if value, ok := strings.CutPrefix(line, name+":"); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}
