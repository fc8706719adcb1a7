// Package config turns a YAML file into a validated, typed configuration, or
// reports all errors in it, by file, line and key.
package config
