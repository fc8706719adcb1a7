package redisconn

import (
	"errors"

	"github.com/redis/go-redis/v9"
)

// Answered returns the command's own error, or that of the whole exchange if
// there was no answer to it; nothing there is no error.
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

// IsAnswer reports whether the error is an answer of Redis to one command, not
// the failure of the exchange.
func IsAnswer(err error) bool {
	var said redis.Error
	return errors.As(err, &said)
}

// IsFull reports whether Redis refused a write because it has no memory left.
func IsFull(err error) bool { return redis.HasErrorPrefix(err, "OOM") }

// IsWrongType reports whether a key is of another type than the command is for.
func IsWrongType(err error) bool { return err != nil && redis.HasErrorPrefix(err, "WRONGTYPE") }

// UnlessWrongType is the error of a command, but for that of a key of the wrong type.
func UnlessWrongType(err error) error {
	if IsWrongType(err) {
		return nil
	}
	return err
}

// Failure is the first error of an exchange, and of its commands, that is more than that a
// key is not there or of the wrong type: the other commands were answered.
func Failure(cmds []redis.Cmder, err error) error {
	if err == nil {
		return nil // none of them has one
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
// writes: a replica answered, or one that starts, or nobody did. Others say themselves
// that they take none at present: full, not able to store, configured not to.
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
