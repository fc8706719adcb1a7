// Package config turns a YAML file into a validated, typed configuration, or
// says everything that is wrong with it, by file, line and key.
package config
