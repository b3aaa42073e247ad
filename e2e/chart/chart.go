// Package chart checks what the Helm chart renders, without a cluster.
package chart
