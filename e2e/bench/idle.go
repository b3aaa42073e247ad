package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// idleWrites counts what is written while nothing is asked for. Collage may write its Lease and nothing else.
func (s *session) idleWrites(ctx context.Context) error {
	// Agents look at the room every half minute, and counts in a status may lag by ten seconds.
	s.say("idle: wait until what was done is told")
	if _, err := s.quiet(ctx, collageMetrics(), 45*time.Second); err != nil {
		return err
	}
	before, err := s.readIdle(ctx)
	if err != nil {
		return err
	}
	s.say("idle: %s with %d volumes mounted", s.idle, s.staged)
	if err := s.rest(ctx, "idle", s.idle); err != nil {
		return err
	}
	after, err := s.readIdle(ctx)
	if err != nil {
		return err
	}
	server, own := after.server.minus(before.server), after.own.minus(before.own)
	suspects := server.suspects()
	foreign, err := s.api.eventsOfOthers(ctx, before.version)
	if err != nil {
		return err
	}
	events := suspects.only(func(_, resource string) bool { return resource == "events" }).sum()
	counted := suspects.sum() - min(events, float64(foreign))
	told := own.only(func(_, resource string) bool { return resource != "leases" }).sum()
	s.say("idle: the API server counted %s", server)
	s.say("idle: Collage says that it sent %s", own)
	if foreign > 0 {
		s.say("idle: %d events were written by others", foreign)
	}
	s.result.set("idle_writes", max(counted, told))
	s.result.set("idle_lease_writes", own.sum()-told)
	s.result.set("idle_seconds", s.idle.Seconds())
	if unclear := suspects.only(func(_, resource string) bool { return resource != "events" }); len(unclear) > 0 {
		s.say("idle: taken for Collage's: %s", unclear)
	}
	return nil
}

type idleReading struct {
	server, own tally
	version     uint64 // of the events' collection
}

func (s *session) readIdle(ctx context.Context) (r idleReading, err error) {
	if r.server, err = s.api.writesCounted(ctx); err != nil {
		return r, err
	}
	if r.own, err = ownTally(ctx, collageMetrics()); err != nil {
		return r, err
	}
	_, version, err := s.api.events(ctx)
	r.version = version
	return r, err
}

type event struct {
	Metadata           struct{ ResourceVersion string }
	ReportingComponent string
	Source             struct{ Component string }
}

func (a *api) events(ctx context.Context) ([]event, uint64, error) {
	text, err := a.do(ctx, http.MethodGet, "/api/v1/events", nil)
	if err != nil {
		return nil, 0, err
	}
	var list struct {
		Metadata struct{ ResourceVersion string }
		Items    []event
	}
	if err := json.Unmarshal(text, &list); err != nil {
		return nil, 0, err
	}
	version, err := versionNumber(list.Metadata.ResourceVersion)
	return list.Items, version, err
}

func versionNumber(text string) (number uint64, err error) {
	_, err = fmt.Sscan(text, &number)
	return number, err
}

// eventsOfOthers counts the events written after that version by anybody but Collage.
func (a *api) eventsOfOthers(ctx context.Context, since uint64) (int, error) {
	all, _, err := a.events(ctx)
	if err != nil {
		return 0, err
	}
	return foreignEvents(all, since), nil
}

func foreignEvents(all []event, since uint64) (count int) {
	for _, e := range all {
		version, err := versionNumber(e.Metadata.ResourceVersion)
		collages := strings.HasPrefix(e.ReportingComponent, "collage") || strings.HasPrefix(e.Source.Component, "collage")
		if err == nil && version > since && !collages {
			count++
		}
	}
	return count
}
