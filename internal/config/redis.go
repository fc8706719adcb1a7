package config

import (
	"errors"
	"net/url"

	"github.com/redis/go-redis/v9"
)

// redisEmbedded is the url of the in-process database.
const redisEmbedded = "embedded"

func (l *loader) redis(v value) {
	c := &l.config.Redis
	var urls []value
	v.mapping(fields{
		"url": func(v value) {
			if urls = []value{v}; kind(v.node) == "a list" {
				urls = v.sequence()
			}
		},
		"mode": func(v value) { v.oneOf(&c.Mode, "sentinel", "cluster") },
	})
	if urls != nil {
		c.URLs = nil
	}
	for _, u := range urls { // the mode is known only now
		l.redisURL(u)
	}
	switch {
	case c.Embedded && (len(c.URLs) > 0 || c.Mode != ""):
		v.child("url").errorf("embedded stands alone; remove mode and the other urls")
	case len(c.URLs) > 1 && c.Mode == "":
		v.child("mode").errorf("is missing; several urls need mode: sentinel or mode: cluster")
	}
}

func (l *loader) redisURL(v value) {
	s, ok := v.scalar()
	if !ok {
		return
	}
	if s == redisEmbedded {
		l.config.Redis.Embedded = true
		return
	}
	if err := parseRedisURL(s, l.config.Redis.Mode); err != nil {
		var cause *url.Error // its text contains the url, with the password
		if errors.As(err, &cause) {
			err = cause.Err
		}
		v.errorf("%v; write redis://HOST:PORT/DB, rediss://HOST:PORT/DB, unix:///PATH or embedded", err)
		return
	}
	if u, err := url.Parse(s); err == nil && u.User != nil {
		l.secrets = true
	}
	l.config.Redis.URLs = append(l.config.Redis.URLs, s)
}

func parseRedisURL(s, mode string) (err error) {
	switch mode {
	case "sentinel":
		_, err = redis.ParseFailoverURL(s)
	case "cluster":
		_, err = redis.ParseClusterURL(s)
	default:
		_, err = redis.ParseURL(s)
	}
	return err
}
