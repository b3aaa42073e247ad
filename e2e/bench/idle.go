package main

import (
	"context"
	"encoding/json"
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
	server, own := after.server.minus(before.server).writes(), after.own.minus(before.own)
	suspects := server.suspects()
	foreign := foreignEvents(before.events, after.events)
	events := suspects.only(func(_, resource string) bool { return resource == "events" }).sum()
	counted := suspects.sum() - min(events, float64(foreign))
	told := own.only(func(_, resource string) bool { return resource != "leases" }).sum()
	s.say("idle: the API server counted %s", server)
	s.say("idle: Collage says that it sent %s", own)
	if foreign > 0 {
		s.say("idle: %d writes of events were by others", foreign)
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
	events      []event
}

func (s *session) readIdle(ctx context.Context) (r idleReading, err error) {
	if r.server, err = s.api.requestsCounted(ctx); err != nil {
		return r, err
	}
	if r.own, err = ownTally(ctx, collageMetrics()); err != nil {
		return r, err
	}
	r.events, err = s.api.events(ctx)
	return r, err
}

type event struct {
	Metadata           struct{ UID, ResourceVersion string }
	ReportingComponent string
	Source             struct{ Component string }
	Count              int
}

func (a *api) events(ctx context.Context) ([]event, error) {
	text, err := a.do(ctx, http.MethodGet, "/api/v1/events", nil)
	if err != nil {
		return nil, err
	}
	var list struct{ Items []event }
	err = json.Unmarshal(text, &list)
	return list.Items, err
}

// foreignEvents counts how often anybody but Collage wrote an event meanwhile: a repetition raises its count.
func foreignEvents(before, after []event) (writes int) {
	seen := map[string]event{}
	for _, e := range before {
		seen[e.Metadata.UID] = e
	}
	for _, e := range after {
		old, known := seen[e.Metadata.UID]
		collages := strings.HasPrefix(e.ReportingComponent, "collage") || strings.HasPrefix(e.Source.Component, "collage")
		if collages || (known && old.Metadata.ResourceVersion == e.Metadata.ResourceVersion) {
			continue
		}
		writes += max(1, e.Count-old.Count)
	}
	return writes
}
