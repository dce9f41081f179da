// Package content embeds the built-in rules, policies and controls: data that
// users could have written themselves, each with its test.
package content
