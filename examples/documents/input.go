package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// file is a document that is to be submitted.
type file struct{ name, content string }

// readInput returns the *.txt files of a folder, or the sample.
func readInput(folder string) ([]file, error) {
	if folder == "" {
		return sample(), nil
	}
	entries, err := os.ReadDir(folder)
	if err != nil {
		return nil, err
	}
	var files []file
	for _, entry := range entries {
		if entry.IsDir() || !strings.EqualFold(filepath.Ext(entry.Name()), ".txt") {
			continue
		}
		content, err := os.ReadFile(filepath.Join(folder, entry.Name()))
		if err != nil {
			return nil, err
		}
		files = append(files, file{entry.Name(), string(content)})
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("there is no *.txt in %s", folder)
	}
	return files, nil
}

// sample returns 40 letters, invoices, contracts and minutes.
func sample() []file {
	templates := []struct{ name, text string }{
		{"letter", "Dear %[1]s, thank you for your visit. We were glad to show you the house. Yours, the archive.\n"},
		{"invoice", "Invoice no. %[2]d for %[1]s. Ten hours of reading, at 80.00 each, make 800.00. It is due in 30 days.\n"},
		{"contract", "This agreement between %[1]s and the archive begins in %[2]d. Either side may end it by a letter.\n"},
		{"minutes", "Minutes of the meeting of %[1]s and the board. There were %[2]d papers to read. All of them were read.\n"},
	}
	people := []string{
		"Ada Lovelace", "Charles Babbage", "Emmy Noether", "Grace Hopper", "Alan Turing",
		"Hedy Lamarr", "Edsger Dijkstra", "Barbara Liskov", "Leslie Lamport", "Radia Perlman",
	}
	var files []file
	for i, person := range people {
		for _, t := range templates {
			_, last, _ := strings.Cut(person, " ")
			files = append(files, file{t.name + "-" + strings.ToLower(last) + ".txt", fmt.Sprintf(t.text, person, 2000+i)})
		}
	}
	return files
}
