//go:build tools

// Package tools names the programs of SPIRE that this module builds; `go mod tidy` keeps what they need.
package tools

import (
	_ "github.com/spiffe/spire/cmd/spire-agent"
	_ "github.com/spiffe/spire/cmd/spire-server"
)
