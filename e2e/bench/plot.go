package main

func plotSVG(flat map[string]any, verdicts []verdict, latencies map[string][]float64) []byte {
	return nil
}
func writeDocs(folder string, flat map[string]any, verdicts []verdict, plot []byte) error { return nil }
