package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"
)

// latency measures claims one after the other, each from its creation until it is Bound: one of Collage, one of the
// floor, and so on, while both run. Who goes first alternates, too.
func (s *session) latency(ctx context.Context) error {
	operator, err := s.operator(ctx)
	if err != nil {
		return err
	}
	defer operator.stop()
	floorProcess, err := s.programs.startFloor(ctx)
	if err != nil {
		return err
	}
	defer floorProcess.stop()
	both := []candidate{collage, floor}
	loads := map[string]*load{}
	for _, who := range both {
		warm := &load{api: s.api, who: who, name: "latency-" + who.name + "-warm", claims: 20}
		if _, err := warm.provision(ctx); err != nil {
			return fmt.Errorf("warm-up: %w", err)
		}
		if _, err := warm.delete(ctx); err != nil {
			return fmt.Errorf("warm-up: %w", err)
		}
		loads[who.name] = &load{api: s.api, who: who, name: "latency-" + who.name, claims: s.serial,
			volumes: make([]string, s.serial)}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	bound, err := s.api.watchBound(ctx)
	if err != nil {
		return err
	}
	s.say("latency: %d claims each, one after the other", s.serial)
	told := time.Now()
	for i := range s.serial {
		for turn := range both {
			who := both[(i+turn)%2]
			l := loads[who.name]
			took, volume, err := bound.claim(ctx, s.api, l.names(s.serial)[i], who.class)
			if err != nil {
				return err
			}
			l.volumes[i] = volume
			s.result.latencies[who.name] = append(s.result.latencies[who.name], took.Seconds()*1000)
		}
		if time.Since(told) > 5*time.Second {
			told = time.Now()
			s.say("latency: %d of %d", i+1, s.serial)
		}
	}
	for _, who := range both {
		if _, err := loads[who.name].delete(ctx); err != nil {
			return fmt.Errorf("delete the claims: %w", err)
		}
	}
	for _, who := range both {
		all := s.result.latencies[who.name]
		s.say("latency: %s p50 %.0f ms, p90 %.0f, p99 %.0f, longest %.0f", who.name, percentile(all, 50), percentile(all, 90),
			percentile(all, 99), percentile(all, 100))
	}
	return nil
}

// boundClaims tells when claims become Bound.
type boundClaims struct {
	ended <-chan error
	mu    sync.Mutex
	waits map[string]chan boundClaim
}

type boundClaim struct {
	at     time.Time
	volume string
}

func (a *api) watchBound(ctx context.Context) (*boundClaims, error) {
	b := &boundClaims{waits: map[string]chan boundClaim{}}
	var err error
	b.ended, err = a.watch(ctx, claimsPath, func(_ string, o object) {
		now := time.Now()
		b.mu.Lock()
		defer b.mu.Unlock()
		if wait := b.waits[o.Metadata.Name]; wait != nil && o.Status.Phase == "Bound" {
			wait <- boundClaim{now, o.Spec.VolumeName}
			delete(b.waits, o.Metadata.Name)
		}
	})
	return b, err
}

// claim makes a claim and returns how long it took until it was Bound, from before the request was sent, and its volume.
func (b *boundClaims) claim(ctx context.Context, a *api, name, class string) (time.Duration, string, error) {
	wait := make(chan boundClaim, 1)
	b.mu.Lock()
	b.waits[name] = wait
	b.mu.Unlock()
	began := time.Now()
	if _, err := a.do(ctx, http.MethodPost, claimsPath, claimObject(name, class)); err != nil {
		return 0, "", err
	}
	select {
	case it := <-wait:
		return it.at.Sub(began), it.volume, nil
	case err := <-b.ended:
		return 0, "", err
	case <-ctx.Done():
		return 0, "", context.Cause(ctx)
	case <-time.After(stalled):
		return 0, "", errors.New(name + " was not Bound within " + stalled.String())
	}
}
