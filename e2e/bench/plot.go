package main

import (
	"bytes"
	"fmt"
	"html"
	"math"
	"slices"
)

// The plot is one SVG without scripts, fonts or pictures from elsewhere. Its background is clear and its colours follow the
// reader's light or dark scheme, also within an <img>.
const plotStyle = `
text { font: 13px system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; fill: #1f2328 }
.title { font-size: 15px; font-weight: 600 }
.small { font-size: 11px; fill: #59636e }
.right { text-anchor: end }
.middle { text-anchor: middle }
.grid { stroke: #d1d9e0; stroke-width: 1 }
.ours { fill: #0969da }
.floor { fill: #8c959f }
.missed { fill: #cf222e }
.whisker { stroke: #1f2328; stroke-width: 1.5; fill: none }
.limit { stroke: #bc4c00; stroke-width: 2; stroke-dasharray: 5 3 }
.limits { fill: #bc4c00 }
.curve { fill: none; stroke-width: 2 }
.curve.ours { stroke: #0969da; fill: none }
.curve.floor { stroke: #8c959f; fill: none }
@media (prefers-color-scheme: dark) {
  text { fill: #f0f6fc }
  .small { fill: #9198a1 }
  .grid { stroke: #3d444d }
  .whisker { stroke: #f0f6fc }
  .ours { fill: #4493f8 }
  .curve.ours { stroke: #4493f8 }
  .missed { fill: #f85149 }
  .limit { stroke: #f0883e }
  .limits { fill: #f0883e }
}
`

const (
	plotWidth = 880
	leftPanel = 20
	midPanel  = 460
	panelSize = 400 // width
	labelSize = 118 // of a bar's name
)

type canvas struct {
	bytes.Buffer
	height float64
}

func (c *canvas) text(x, y float64, class, format string, arguments ...any) {
	fmt.Fprintf(c, `<text x="%.1f" y="%.1f" class="%s">%s</text>`+"\n", x, y, class, html.EscapeString(fmt.Sprintf(format, arguments...)))
}

func (c *canvas) line(x1, y1, x2, y2 float64, class string) {
	fmt.Fprintf(c, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" class="%s"/>`+"\n", x1, y1, x2, y2, class)
}

func (c *canvas) bar(x, y, width, height float64, class string) {
	fmt.Fprintf(c, `<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" rx="2" class="%s"/>`+"\n", x, y, max(width, 0), height, class)
}

// plotSVG draws what was measured: ratios to the floor, latencies, memory.
func plotSVG(flat map[string]any, verdicts []verdict, latencies map[string][]float64) []byte {
	c := &canvas{}
	missed := map[string]bool{}
	for _, key := range missedGoals(verdicts) {
		missed[key] = true
	}
	c.ratios(flat, missed)
	c.latencies(flat, latencies)
	bottom := c.memory(flat, missed)
	footer := fmt.Sprintf("Red misses its limit. %s, %v cores, kernel %v, Kubernetes %v", text(flat["date"]), flat["machine_cores"], flat["machine_kernel"], flat["version_kubernetes"])
	c.text(leftPanel, bottom+26, "small", "%s", footer)
	var out bytes.Buffer
	fmt.Fprintf(&out, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %.0f" width="%d" height="%.0f" role="img" aria-label="Benchmarks of Collage beside the floor">`+"\n",
		plotWidth, bottom+40, plotWidth, bottom+40)
	fmt.Fprintf(&out, "<style>%s</style>\n", plotStyle)
	out.Write(c.Bytes())
	out.WriteString("</svg>\n")
	return out.Bytes()
}

func text(value any) string {
	if value == nil {
		return ""
	}
	return fmt.Sprint(value)
}

// figure is a number of the results, if it was measured.
func figure(flat map[string]any, key string) (float64, bool) {
	value, ok := flat[key].(float64)
	return value, ok
}

// ratios: a bar for each rate with a whisker from the lowest to the highest pair, and the line that is to be reached.
func (c *canvas) ratios(flat map[string]any, missed map[string]bool) {
	const top, row = 30, 46
	c.text(leftPanel, top-6, "title", "Rate, as a share of the floor's")
	highest := 1.0
	for _, phase := range rates {
		if value, ok := figure(flat, phase+"_ratio_highest"); ok {
			highest = max(highest, value)
		}
	}
	ticks := niceTicks(highest)
	x := scale(leftPanel+labelSize, leftPanel+panelSize-40, ticks[len(ticks)-1])
	end := float64(top + 22 + row*len(rates))
	for _, tick := range ticks {
		c.line(x(tick), top+16, x(tick), end, "grid")
		c.text(x(tick), end+16, "small middle", "%s", number(tick))
	}
	for i, phase := range rates {
		y := float64(top + 28 + row*i)
		value, ok := figure(flat, phase+"_ratio_to_floor")
		c.text(leftPanel+labelSize-10, y+18, "right", "%s", phase)
		if !ok {
			c.text(x(0)+6, y+18, "small", "not measured")
			continue
		}
		class := "ours"
		if missed[phase+"_ratio_to_floor"] {
			class = "missed"
		}
		c.bar(x(0), y, x(value)-x(0), 26, class)
		low, _ := figure(flat, phase+"_ratio_lowest")
		high, _ := figure(flat, phase+"_ratio_highest")
		c.line(x(low), y+13, x(high), y+13, "whisker")
		c.line(x(low), y+8, x(low), y+18, "whisker")
		c.line(x(high), y+8, x(high), y+18, "whisker")
		c.text(beside(max(x(high), x(value))+6, x(0.85)), y+18, "", "%.2f", value)
	}
	c.line(x(0.85), top+14, x(0.85), end, "limit")
	c.text(x(0.85), top+11, "small middle limits", "0.85")
	rounds, _ := figure(flat, "rounds")
	c.text(leftPanel, end+36, "small", "Median of %.0f paired rounds, from the lowest to the highest", rounds)
}

// beside moves a number at x that would lie across a limit's line to the right of it.
func beside(x, limit float64) float64 {
	if x < limit+4 && x+30 > limit {
		return limit + 6
	}
	return x
}

// latencies: how many of a hundred claims are Bound after so many milliseconds.
func (c *canvas) latencies(flat map[string]any, latencies map[string][]float64) {
	const top, height = 30, 180
	c.text(midPanel, top-6, "title", "One claim: creation to Bound")
	longest := 0.0
	for _, all := range latencies {
		if len(all) > 0 {
			longest = max(longest, slices.Max(all))
		}
	}
	bottom := float64(top + 26 + height)
	left, right := float64(midPanel+44), float64(midPanel+panelSize-16)
	if longest == 0 {
		c.text(left, bottom-height/2, "small", "not measured")
		return
	}
	ticks := niceTicks(longest)
	y := func(ms float64) float64 { return bottom - ms/ticks[len(ticks)-1]*height }
	for _, tick := range ticks {
		c.line(left, y(tick), right, y(tick), "grid")
		c.text(left-6, y(tick)+4, "small right", "%s", number(tick))
	}
	x := scale(left, right, 100)
	for _, percent := range []float64{0, 25, 50, 75, 99} {
		c.text(x(percent), bottom+16, "small middle", "p%.0f", percent)
	}
	for row, who := range []candidate{floor, collage} {
		all := slices.Sorted(slices.Values(latencies[who.name]))
		class := map[bool]string{true: "ours", false: "floor"}[who == collage]
		fmt.Fprintf(c, `<polyline class="curve %s" points="`, class)
		for i, ms := range all {
			fmt.Fprintf(c, "%.1f,%.1f ", x(100*float64(i+1)/float64(len(all))), y(ms))
		}
		c.WriteString(`"/>` + "\n")
		c.bar(left+10, float64(top+26+20*row), 14, 10, class)
		c.text(left+30, float64(top+35+20*row), "", "%s", map[bool]string{true: "Collage", false: "floor"}[who == collage])
	}
	p50, _ := figure(flat, "latency_p50_ms_above_floor")
	p99, _ := figure(flat, "latency_p99_ms_above_floor")
	c.text(midPanel, bottom+36, "small", "ms, %d claims each, in turn; above the floor: p50 %.0f, p99 %.0f", len(latencies[collage.name]), p50, p99)
}

// memory: a bar for each resident size, with its limit.
func (c *canvas) memory(flat map[string]any, missed map[string]bool) (bottom float64) {
	const top, row = 320, 34
	c.text(leftPanel, top, "title", "Memory and its limits, MiB")
	bars := []struct{ key, name string }{
		{"operator_hwm_mib_10k", "operator, peak"}, {"operator_rss_mib_10k", "operator, resident"},
		{"node_rss_mib", "node agent, resident"}, {"node_anon_mib", "node agent, anonymous"}}
	limits, highest := map[string]float64{}, 0.0
	for _, g := range goals {
		limits[g.key] = g.limit
	}
	for _, bar := range bars {
		value, _ := figure(flat, bar.key)
		highest = max(highest, value, limits[bar.key])
	}
	ticks := niceTicks(highest)
	const labels = 170
	x := scale(leftPanel+labels, plotWidth-70, ticks[len(ticks)-1])
	bottom = float64(top + 14 + row*len(bars))
	for _, tick := range ticks {
		c.line(x(tick), top+12, x(tick), bottom, "grid")
		c.text(x(tick), bottom+16, "small middle", "%s", number(tick))
	}
	for i, bar := range bars {
		y := float64(top + 20 + row*i)
		c.text(leftPanel+labels-10, y+15, "right", "%s", bar.name)
		value, ok := figure(flat, bar.key)
		if ok {
			class := "ours"
			if missed[bar.key] {
				class = "missed"
			}
			c.bar(x(0), y, x(value)-x(0), 20, class)
			c.text(beside(x(value)+6, x(limits[bar.key])), y+15, "", "%.1f", value)
		} else {
			c.text(x(0)+6, y+15, "small", "not measured")
		}
		c.line(x(limits[bar.key]), y-4, x(limits[bar.key]), y+24, "limit")
	}
	note := ""
	if objects, ok := figure(flat, "scale_objects"); ok {
		note = fmt.Sprintf("Operator with %.0f claims, volumes and pods each.", objects)
	}
	if staged, ok := figure(flat, "node_staged_volumes"); ok {
		note += fmt.Sprintf(" Node agent with every kind and %.0f volumes mounted.", staged)
	}
	if restart, ok := figure(flat, "restart_seconds_10k"); ok {
		note += fmt.Sprintf(" A restart takes %s s.", number(restart))
	}
	c.text(leftPanel, bottom+38, "small", "%s", note)
	return bottom + 38
}

// scale maps 0 to high onto left to right.
func scale(left, right, high float64) func(float64) float64 {
	return func(value float64) float64 { return left + (right-left)*value/high }
}

// niceTicks are four to eight round numbers from 0 to one that is not below the value.
func niceTicks(value float64) []float64 {
	if value <= 0 {
		return []float64{0, 1}
	}
	step := math.Pow(10, math.Floor(math.Log10(value/4)))
	for _, factor := range []float64{1, 2, 5, 10} {
		if value/(step*factor) <= 7 {
			step *= factor
			break
		}
	}
	var ticks []float64
	for i := 0; ; i++ {
		tick := step * float64(i)
		ticks = append(ticks, math.Round(tick*1e6)/1e6)
		if tick >= value-step*1e-9 {
			return ticks
		}
	}
}
