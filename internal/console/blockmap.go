package console

import (
	"fmt"

	"github.com/sessiond/sessiond/internal/rawtext"
)

// mostCells is the most blocks that are drawn; more are too small to see.
const mostCells = 4096

// blockDrawing is the map of the blocks of one outside address, one cell for each.
type blockDrawing struct {
	Width, Height int
	Cells         []blockCell
}

// blockCell is the drawing of one block. Its state is told by its shape as well as by its colour.
type blockCell struct {
	X, Y  int
	State string
	Title string
}

// Sizes of the drawing.
const (
	cellsPerRow = 32
	cellStep    = 20
)

// draw makes the map of blocks.
func draw(blocks []shownBlock) *blockDrawing {
	if len(blocks) == 0 {
		return nil
	}
	rows := (len(blocks) + cellsPerRow - 1) / cellsPerRow
	d := &blockDrawing{Width: min(len(blocks), cellsPerRow) * cellStep, Height: rows * cellStep}
	for i := range blocks {
		b := &blocks[i]
		title := fmt.Sprintf("%d-%d %s", b.First, b.Last, b.State())
		if b.Binding != nil {
			title += fmt.Sprintf(", %s %s", b.Binding.Inside, rawtext.Of(b.Binding.UserName))
		}
		d.Cells = append(d.Cells, blockCell{X: i % cellsPerRow * cellStep, Y: i / cellsPerRow * cellStep, State: b.State(), Title: title})
	}
	return d
}
