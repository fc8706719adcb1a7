package redisconn

import (
	"errors"

	"github.com/redis/go-redis/v9"
)

// Answered returns the command's own error, or that of the whole exchange if the command
// got no answer. A missing key is no error.
func Answered(cmd redis.Cmder, failed error) error {
	switch err := cmd.Err(); {
	case errors.Is(err, redis.Nil):
		return nil
	case err != nil:
		return err
	}
	if failed != nil && !IsAnswer(failed) {
		return failed
	}
	return nil
}

// IsAnswer reports whether the error is an answer of Redis to one command, and not a
// failure of the exchange.
func IsAnswer(err error) bool {
	var said redis.Error
	return errors.As(err, &said)
}

// IsFull reports whether Redis refused a write because it has no memory left.
func IsFull(err error) bool { return redis.HasErrorPrefix(err, "OOM") }

// IsWrongType reports whether the error says that the key has another type than the command
// needs.
func IsWrongType(err error) bool { return err != nil && redis.HasErrorPrefix(err, "WRONGTYPE") }

// UnlessWrongType returns the error of a command, nil if the key has the wrong type.
func UnlessWrongType(err error) error {
	if IsWrongType(err) {
		return nil
	}
	return err
}

// Failure returns the first error of an exchange and its commands, except for missing keys
// and keys of the wrong type, which fail alone.
func Failure(cmds []redis.Cmder, err error) error {
	if err == nil {
		return nil // then no command has an error
	}
	for _, c := range cmds {
		if err := UnlessWrongType(c.Err()); err != nil && !errors.Is(err, redis.Nil) {
			return err
		}
	}
	if errors.Is(err, redis.Nil) {
		return nil
	}
	return UnlessWrongType(err)
}

// isAstray reports whether the address may lead to another server by now, which takes
// writes: the answer came from a replica or a server that starts, or there was none. Other
// servers answer that they cannot write at present: full, unable to save, configured not
// to.
func isAstray(err error) bool {
	if !IsAnswer(err) || redis.IsReadOnlyError(err) {
		return true
	}
	for _, prefix := range []string{"LOADING", "MASTERDOWN", "CLUSTERDOWN", "NOAUTH"} {
		if redis.HasErrorPrefix(err, prefix) {
			return true
		}
	}
	return false
}
